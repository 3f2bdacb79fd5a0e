"""A worker's ear and voice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redisq.broker.registry import Registry
from redisq.worker.control import Control


class SlowLine:
    """Subscribes only when it may."""

    def __init__(self) -> None:
        self.may_subscribe = asyncio.Event()
        self.sent = asyncio.Event()

    async def messages(self, _channel: str, subscribed: asyncio.Event) -> AsyncIterator[bytes]:
        await self.may_subscribe.wait()
        subscribed.set()
        await asyncio.Event().wait()
        yield b""

    async def execute_many(self, _commands: Sequence[Any]) -> list[Any]:
        self.sent.set()
        return []


def test_a_worker_is_listed_only_when_it_hears_questions() -> None:
    async def check() -> None:
        line: Any = SlowLine()
        control = Control(line, Registry("redisq"), "one", lambda: {"pid": 1}, {}, logging.getLogger("test"))
        control.start()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not line.sent.is_set()
        line.may_subscribe.set()
        async with asyncio.timeout(5):
            await line.sent.wait()
        await control.stop()

    asyncio.run(check())
