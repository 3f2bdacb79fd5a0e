"""End tasks of an event loop, and see them end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end_tasks"]

#: Seconds after which a task that goes on is cancelled again.
AGAIN = 0.5


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; what they raise is nobody's business any more.

    Once is not enough: redis-py sends by `asyncio.wait_for`, which in Python 3.11 loses a cancellation that comes in the
    moment when the work is done (https://github.com/python/cpython/issues/86296).
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=AGAIN)
        for task in ended:
            if not task.cancelled():
                task.exception()
