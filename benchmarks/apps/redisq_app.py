from __future__ import annotations

from benchmarks.apps.stamps import stamp_now
from redisq import RedisQ

app = RedisQ("bench")


@app.task(queue="bench")
async def noop() -> None: ...


@app.task(queue="bench")
def noop_sync() -> None: ...


@app.task(queue="bench", key="{chat}")
async def noop_lane(chat: int) -> None: ...


@app.task(queue="bench", key="{chat}", limits=["bot:1000000/s burst 1000000", "chat:{chat}:1000000/s burst 1000000"])
async def noop_limited(chat: int) -> None: ...


@app.task(queue="bench")
async def stamp(clock: str, since: float) -> None:
    stamp_now(clock, since)
