from __future__ import annotations

from benchmarks.apps.stamps import stamp_now
from redisq import RedisQ

app = RedisQ("bench")


@app.task(queue="bench")
async def noop() -> None: ...


@app.task(queue="bench")
def noop_sync() -> None: ...


@app.task(queue="bench")
async def stamp(clock: str, since: float) -> None:
    stamp_now(clock, since)
