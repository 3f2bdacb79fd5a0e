"""Two apps whose handlers and hooks look for what another one left in a context variable, and leave something there."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from redisq import Context, Middleware, RedisQ, Reject

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")

#: What the hooks in the worker's own process have found.
found: list[str] = []


def look(mine: str) -> str:
    """Return what is there, and leave something else."""
    before = SEEN.get()
    SEEN.set(mine)
    return before


class Hooks(Middleware):
    def run(self, context: Context) -> Generator[None, Any, Any]:
        if (before := look("its own run hook")) not in ("nothing", "the start"):
            raise Reject(f"the run hook of {context.id} has found {before}")
        yield
        look("the end of a run hook")

    def claim(self, queue: str, delivery: Any) -> None:
        found.append(look("a claim hook"))

    def settle(self, end: Any) -> None:
        found.append(look("a settle hook"))

    def retry(self, end: Any) -> None:
        found.append(look("a retry hook"))


async def in_the_loop(number: int) -> str:
    before = look(f"coroutine {number}")
    await asyncio.sleep(0)
    return before


def in_a_thread(number: int) -> str:
    return look(f"thread {number}")


def in_a_process(number: int) -> str:
    return look(f"process {number}")


async def again(number: int) -> str:
    before = look(f"failed attempt {number}")
    if number not in failed:
        failed.add(number)
        raise ValueError(before)
    return before


async def past_its_time(number: int) -> str:
    before = look(f"timeout {number}")
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return before


async def acknowledged_first(number: int) -> None:
    early.append(look(f"at most once {number}"))


def make_app(name: str, middleware: Sequence[Middleware] = ()) -> RedisQ:
    app = RedisQ(name, middleware=middleware)
    app.task(result_ttl=60)(in_the_loop)
    app.task(result_ttl=60)(in_a_thread)
    app.task(result_ttl=60, pool="process")(in_a_process)
    app.task(result_ttl=60, retry_backoff=0.01)(again)
    app.task(result_ttl=60, soft_timeout=0.01)(past_its_time)
    app.task(ack="early")(acknowledged_first)
    return app


failed: set[int] = set()
early: list[str] = []
plain = make_app("plain")
hooked = make_app("hooked", [Hooks()])
