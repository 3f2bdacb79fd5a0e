from __future__ import annotations

import os

from celery import Celery

from benchmarks.apps.stamps import stamp_now

app = Celery("bench", broker=os.environ["REDISQ_URL"])
app.conf.update(task_acks_late=True, task_ignore_result=True, task_default_queue="bench")


@app.task
def noop() -> None: ...


@app.task
def stamp(clock: str, since: float) -> None:
    stamp_now(clock, since)
