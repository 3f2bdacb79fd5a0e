"""A bot with something of everything that waits: a rate, a pause, a retry, a lease. It notes each start in a ledger."""

from __future__ import annotations

import asyncio
import os
import time

from redisq import Context, RateLimited, RedisQ

#: Seconds between two calls of `limited`.
SPACING = 0.5

app = RedisQ("limited_bot", lease=float(os.environ.get("BOT_LEASE", "30")))

_ledger = os.open(os.environ["BOT_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BOT_LEDGER" in os.environ else None


def note(kind: str) -> None:
    """One line, one write: whole also when the process is killed right after."""
    if _ledger is not None:
        os.write(_ledger, f"{kind} {os.getpid()} {time.time():.6f}\n".encode())


def is_first(kind: str) -> bool:
    """Note a start; whether it is the first of its kind."""
    note(kind)
    with open(os.environ["BOT_LEDGER"]) as lines:
        return sum(line.startswith(f"{kind} ") for line in lines) == 1


@app.task(queue="held")
async def hold() -> None:
    """Runs until its worker dies, and not again after that."""
    if is_first("hold"):
        await asyncio.Event().wait()


@app.task(queue="work", limits=["slow:2/s"])
async def limited() -> None:
    note("limited")


@app.task(queue="work", bind=True, max_retries=1, retry_backoff=5.0)
async def fail_once(context: Context) -> None:
    note("fail_once")
    if context.attempt == 1:
        raise RuntimeError("not yet")


@app.task(queue="work", limits=["platform:100/s burst 10"])
async def refused_once() -> None:
    if is_first("refused_once"):
        raise RateLimited(5.0)
