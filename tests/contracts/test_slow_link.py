"""A slow link is no dead one: an exchange goes on while bytes move, however long it takes, up to a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from redisq import RedisQ
from redisq.broker import idle
from redisq.broker.commands import Command
from redisq.broker.connection import Server
from redisq.errors import BrokerUnavailable
from tests.servers import RedisServer
from tests.wire import SlowProxy

MESSAGE = b"x" * 400_000
TIMEOUT = 0.5

Execute = Callable[[Sequence[Command[Any]]], list[Any]]


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[SlowProxy]:
    proxy = SlowProxy(redis_server.port, 1_000_000)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sync", "async"])
def execute(request: pytest.FixtureRequest, proxy: SlowProxy) -> Execute:
    """Carries commands over the slow link."""
    server = Server(f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT)

    def carry(commands: Sequence[Command[Any]]) -> list[Any]:
        connector = server.connector("test")
        try:
            return connector.execute_many(commands)
        finally:
            connector.close()

    async def acarry(commands: Sequence[Command[Any]]) -> list[Any]:
        connector = server.async_connector("test")
        try:
            return await connector.execute_many(commands)
        finally:
            await connector.aclose()

    return carry if request.param == "sync" else lambda commands: asyncio.run(acarry(commands))


def _plain(*words: Any) -> Command[Any]:
    return Command("", None, words, lambda reply: reply)


def test_a_large_answer_arrives_however_long_it_takes(execute: Execute, raw: redis.Redis) -> None:
    raw.set("foreign:message", MESSAGE)
    begun = time.monotonic()
    assert execute([_plain("MGET", *["foreign:message"] * 5)]) == [[MESSAGE] * 5]
    assert time.monotonic() - begun > 2 * TIMEOUT
    assert execute([_plain("GET", "foreign:message")] * 4) == [MESSAGE] * 4


def test_a_large_request_arrives_however_long_it_takes(execute: Execute, raw: redis.Redis) -> None:
    begun = time.monotonic()
    assert execute([_plain("SET", f"foreign:message{number}", MESSAGE) for number in range(5)]) == [b"OK"] * 5
    assert time.monotonic() - begun > 2 * TIMEOUT
    assert raw.get("foreign:message4") == MESSAGE


def test_an_answer_that_stops_in_its_midst_is_given_up(execute: Execute, raw: redis.Redis, proxy: SlowProxy) -> None:
    raw.set("foreign:message", MESSAGE)
    proxy.limit = 100_000
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        execute([_plain("GET", "foreign:message")])
    assert time.monotonic() - begun < 20 * TIMEOUT


def test_answers_that_never_end_are_given_up(execute: Execute, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "LONGEST", 2 * TIMEOUT)
    with pytest.raises(BrokerUnavailable, match="not complete"):
        execute([_plain("SET", "foreign:message", b"x" * 10_000_000)])


def test_concurrent_calls_of_a_loop_pass_a_slow_link(proxy: SlowProxy, raw: redis.Redis) -> None:
    app = RedisQ("bot", url=f"redis://127.0.0.1:{proxy.port}", timeout=TIMEOUT)

    @app.task
    async def keep(text: str) -> None: ...

    async def send() -> None:
        text = MESSAGE.decode()
        # What gathers behind the first leaves in one trip.
        await asyncio.gather(keep.adelay("first"), keep.adelay_many([(text,)] * 5))
        await app.aclose()

    asyncio.run(send())
    assert raw.zcard("bot:queue:main") == 6
