"""`redisq cancel JOB`."""

from __future__ import annotations

import click

from redisq.cli.output import print_json, say
from redisq.cli.report import find_place, find_places, unknown_job
from redisq.cli.target import Target, json_option, queues_option, target_options
from redisq.redact import shown
from redisq.states import State

__all__ = ["cancel"]


@click.command()
@click.argument("job")
@queues_option
@json_option
@target_options
def cancel(target: Target, job: str, as_json: bool) -> None:
    """Take JOB out of its queue; when it runs, have its worker stop it: it does not run again. JOB may be a task id of Celery.

    A coroutine is cancelled, a child process killed; a function in a thread is told when it next runs Python code. Without
    -Q, all queues are looked through. The exit code is 1 when the job is over, or a dead letter. A Celery worker that holds
    the task goes on with it, but it does not come again: `celery control revoke` reaches such a worker.

    With --json: {"id", "queue", "cancelled": true}.
    """
    cancelled = [place for place in find_places(target, job) if target.app.job(place.id, queue=place.keys.queue).cancel()]
    if cancelled:
        queue = cancelled[0].keys.queue
        if as_json:
            print_json({"id": job, "queue": queue, "cancelled": True})
        else:
            say(f"cancelled job {job} of queue {queue}")
            if any(place.id != job and place.found.state == State.PROCESSING for place in cancelled):
                say(f"a worker has it; if that is Celery's, stop it there: celery control revoke --terminate {shown(job, 128)}")
        return
    now = find_place(target, job)
    if not now:
        raise unknown_job(target, job)
    holder = f" on worker {shown(now.found.worker, 200)}" if now.found.worker else ""
    advice = "; `redisq dead drop` removes it" if now.found.state == "dead" else ""
    raise click.ClickException(
        f"job {job} of queue {now.keys.queue} could not be cancelled: it is {now.found.state}{holder}{advice}"
    )
