"""Handlers of all kinds: each notes its number, and comes to twice as much."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from redisq import Context, Middleware, RedisQ

ran: list[int] = []


async def double(number: int) -> int:
    await asyncio.sleep(0)
    ran.append(number)
    return 2 * number


@functools.wraps(double)
def wrapper(*args: Any, **kwargs: Any) -> Any:
    return double(*args, **kwargs)


@functools.wraps(double)
def runs_it_itself(*args: Any) -> Any:
    return asyncio.run(double(*args))


def returns_a_coroutine(number: int) -> Awaitable[int]:
    return double(number)


async def forgets_to_await(number: int) -> Awaitable[int]:
    return double(number)


class Double:
    async def __call__(self, number: int) -> int:
        return await double(number)

    async def method(self, number: int) -> int:
        return await double(number)

    @classmethod
    async def of_the_class(cls, number: int) -> int:
        return await double(number)


HANDLERS: dict[str, Callable[[int], Any]] = {
    "wrapper": wrapper,
    "runs_it_itself": runs_it_itself,
    "returns_a_coroutine": returns_a_coroutine,
    "forgets_to_await": forgets_to_await,
    "object": Double(),
    "partial": functools.partial(double),
    "partial_of_an_object": functools.partial(Double()),
    "static": staticmethod(double),
    "method": Double().method,
    "of_the_class": Double.of_the_class,
}


class Hooks(Middleware):
    def run(self, context: Context) -> Generator[None, Any, Any]:
        returned = yield
        assert isinstance(returned, int), f"{context.task}: the hook gets what it comes to"


apart = RedisQ("apart")
for _name, _handler in HANDLERS.items():
    apart.task(name=_name, result_ttl=60, pool="process")(_handler)
