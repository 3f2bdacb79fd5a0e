"""The bot that the worker processes of the chaos runs run: it notes each start, end and cancellation in the ledger."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from redisq import RedisQ
from tests.chaos.ledger import Book

QUEUE = "chaos"

app = RedisQ(QUEUE, lease=float(os.environ.get("CHAOS_LEASE", "30")))
_book = Book(Path(os.environ["CHAOS_LEDGER"]), str(os.getpid())) if "CHAOS_LEDGER" in os.environ else None


def note(kind: str, number: int) -> None:
    assert _book is not None
    _book.note(kind, number)


@app.task(queue=QUEUE)
async def work(number: int, milliseconds: float) -> None:
    note("S", number)
    try:
        await asyncio.sleep(milliseconds / 1000)
    except asyncio.CancelledError:
        note("X", number)
        raise
    note("E", number)


@app.task(queue=QUEUE)
async def pill(number: int) -> None:
    """Takes its process with it, each time."""
    note("S", number)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
