"""Tasks that are registered while the worker runs, by a module that is imported late, have room of their own like all others."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

import redisq
from redisq import Middleware, RedisQ, Worker
from redisq.app.shared import SHARED
from redisq.message import Delivery
from tests.integration.processes import wait_until

#: Long enough for what has no room to go back to the queue many times.
LONG = 0.5


class Claims(Middleware):
    """Counts how often each message was claimed."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def claim(self, queue: str, delivery: Delivery) -> None:
        self.of[delivery.id] += 1


class Bot:
    """An app with a worker of one thread, and a sync handler that ends when it is told."""

    def __init__(self, url: str) -> None:
        self.claims = Claims()
        self.app = RedisQ("bot", url=url, middleware=[self.claims])
        self.begun: list[int] = []
        self.end = threading.Event()
        self.beats: list[int] = []
        self.beaten = asyncio.Event()

    @asynccontextmanager
    async def works(self) -> AsyncIterator[None]:
        try:
            async with Worker(self.app, concurrency=8, threads=1, processes=1):
                yield
                self.end.set()
        finally:
            self.end.set()
            await self.app.aclose()

    def hold(self, number: int) -> None:
        self.begun.append(number)
        self.end.wait(20)

    async def beat(self, number: int) -> None:
        self.beats.append(number)
        self.beaten.set()

    async def wait_for_a_beat(self, number: int, countdown: float = 0.0) -> None:
        self.beaten.clear()
        await self.app.tasks["beat"].options(countdown=countdown).adelay(number)
        await asyncio.wait_for(self.beaten.wait(), 20)


def redefine(bot: Bot) -> Callable[..., Any]:
    """A notebook's cell that is run again: first it had an async handler, now it has a sync one."""
    names: dict[str, Any] = {"bot": bot, "__name__": "__main__"}
    cell = "@bot.app.task\n{}def hold(number: int) -> None:\n    bot.hold(number)\n"
    exec(cell.format("async "), names)
    return lambda: exec(cell.format(""), names)


@pytest.mark.parametrize("how", ["beside others of its kind", "the first of its kind", "shared", "redefined"])
def test_a_late_sync_task_is_leased_when_a_thread_is_free(how: str, redis_url: str, raw: redis.Redis) -> None:
    async def main() -> None:
        bot = Bot(redis_url)
        bot.app.task(name="beat")(bot.beat)
        register: Callable[[], Any] = lambda: bot.app.task(name="hold")(bot.hold)  # noqa: E731
        if how == "beside others of its kind":
            bot.app.task(name="other")(lambda: None)
        elif how == "shared":
            register = lambda: redisq.task(name="hold", queue="bot")(bot.hold)  # noqa: E731
        elif how == "redefined":
            register = redefine(bot)
        async with bot.works():
            await bot.wait_for_a_beat(0)
            register()
            await bot.wait_for_a_beat(1)
            jobs = [await bot.app.asend("hold", (number,), queue="bot") for number in range(6)]
            await asyncio.to_thread(wait_until, lambda: bot.begun, "the first began")
            # What a claim that was on its way brought goes back.
            await asyncio.to_thread(wait_until, lambda: raw.zcard("bot:queue:processing") == 1, "only that one is leased")
            before = bot.claims.of.copy()
            await bot.wait_for_a_beat(2, countdown=LONG)
            after = bot.claims.of - before
            assert sum(after[job.id] for job in jobs) == 0, "what waits for the thread stays in the queue"
            bot.end.set()
            await asyncio.to_thread(wait_until, lambda: len(bot.begun) == 6, "all run")

    try:
        asyncio.run(main())
    finally:
        SHARED.tasks.pop("hold", None)


def test_a_late_async_task_runs_while_all_threads_are_busy(redis_url: str, raw: redis.Redis) -> None:
    async def main() -> None:
        bot = Bot(redis_url)
        hold = bot.app.task(name="hold")(bot.hold)
        async with bot.works():
            for number in range(6):
                await hold.adelay(number)
            await asyncio.to_thread(wait_until, lambda: bot.begun, "the thread is busy")
            bot.app.task(name="beat")(bot.beat)
            for number in range(3):
                await bot.wait_for_a_beat(number)
            assert raw.zcard("bot:queue:processing") <= 2
            bot.end.set()
            await asyncio.to_thread(wait_until, lambda: len(bot.begun) == 6, "all run")
        assert bot.beats == [0, 1, 2]

    asyncio.run(main())
