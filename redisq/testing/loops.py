"""Run a coroutine to its end from sync code, wherever that is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from redisq.app.app import RedisQ
from redisq.clocks import steady_loop

__all__ = ["loop_is_running", "off_the_loop", "run_here"]

T = TypeVar("T")


def loop_is_running() -> bool:
    """Whether this is called, directly or not, by a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_here(app: RedisQ, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in this thread, in an event loop of its own. The thread's own loop, if one is set, stays what it is."""

    async def closing() -> T:
        try:
            return await work()
        finally:
            await app.aclose()

    with asyncio.Runner(loop_factory=steady_loop) as runner:
        return runner.run(closing())


def off_the_loop(work: Callable[[], T]) -> T:
    """Call it in this thread; in another one when a loop runs in this, for then no other can."""
    if not loop_is_running():
        return work()
    context = copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="redisq-eager") as pool:
        return pool.submit(context.run, work).result()
