"""A worker's ear and voice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis

from redisq.broker.connection import Server
from redisq.broker.listener import messages
from redisq.broker.registry import Registry
from redisq.codec.msgpack import decode_value, encode_value
from redisq.errors import BrokerError
from redisq.troubles import Troubles
from redisq.worker import control as controls
from redisq.worker.control import Control
from tests.servers import RedisServer
from tests.wire import CuttingProxy, canned_server


def told() -> tuple[Troubles, logging.Logger]:
    log = logging.getLogger("test")
    return Troubles(log), log


class SlowLine:
    """Subscribes only when it may."""

    def __init__(self) -> None:
        self.may_subscribe = asyncio.Event()
        self.sent = asyncio.Event()

    async def messages(self, _channel: str, subscribed: asyncio.Event, _refused: Any) -> AsyncIterator[bytes]:
        await self.may_subscribe.wait()
        subscribed.set()
        await asyncio.Event().wait()
        yield b""

    async def execute_many(self, commands: Sequence[Any]) -> list[Any]:
        self.sent.set()
        return [None] * len(commands)


def test_a_worker_is_listed_only_when_it_hears_questions() -> None:
    async def check() -> None:
        line: Any = SlowLine()
        control = Control(line, Registry("redisq"), "one", lambda: {"pid": 1}, {}, *told())
        control.start()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not line.sent.is_set()
        line.may_subscribe.set()
        async with asyncio.timeout(5):
            await line.sent.wait()
        await control.stop()

    asyncio.run(check())


def test_a_worker_that_may_not_hear_questions_says_so_once_and_is_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controls, "HEARS_WITHIN", 0.05)
    monkeypatch.setattr(controls, "BEAT", 0.01)

    class Refusing:
        """Listening is forbidden, all else is not; in the end that is, too."""

        def __init__(self) -> None:
            self.signs = 0
            self.may = asyncio.Event()

        async def messages(self, _channel: str, subscribed: asyncio.Event, refused: Any) -> AsyncIterator[bytes]:
            while not self.may.is_set():
                refused(BrokerError("NOPERM"))
                await asyncio.sleep(0)
            subscribed.set()
            await asyncio.Event().wait()
            yield b""

        async def execute_many(self, commands: Sequence[Any]) -> list[Any]:
            self.signs += 1
            return [None] * len(commands)

    async def check() -> None:
        line: Any = Refusing()
        control = Control(line, Registry("redisq"), "one", lambda: {"pid": 1}, {}, *told())
        control.start()
        async with asyncio.timeout(5):
            while line.signs < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert caplog.text.count("Cannot hear questions") == 1
        line.may.set()
        async with asyncio.timeout(5):
            while "Can hear questions" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await control.stop()

    asyncio.run(check())


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "ping", "call": "x", "workers": None, "arguments": []},
        {"ask": ["ping"], "call": "x", "workers": None, "arguments": {}},
        {"ask": "ping", "call": "x", "workers": 5, "arguments": {}},
        {"ask": "ping", "call": "a b", "workers": None, "arguments": {}},
        {"ask": "fails", "call": "x", "workers": None, "arguments": {}},
        {"ask": "ping"},
        "ping",
    ],
)
def test_a_question_that_makes_no_sense_does_not_end_the_hearing(question: Any) -> None:
    class Line:
        def __init__(self) -> None:
            self.answers: list[Any] = []
            self.over = asyncio.Event()

        async def messages(self, _channel: str, subscribed: asyncio.Event, _refused: Any) -> AsyncIterator[bytes]:
            subscribed.set()
            yield b"\xc1"
            yield encode_value(question)
            yield encode_value({"ask": "ping", "call": "y", "workers": ["one"], "arguments": {}})
            self.over.set()
            await asyncio.Event().wait()

        async def execute(self, command: Any) -> None:
            _, channel, reply = command.args
            self.answers.append((channel, decode_value(reply)["answer"]))

        async def execute_many(self, commands: Sequence[Any]) -> list[Any]:
            return [None] * len(commands)

    def fails(_: Any) -> None:
        raise AttributeError("no such thing")

    async def check() -> None:
        line: Any = Line()
        answers = {"ping": lambda _: True, "fails": fails}
        control = Control(line, Registry(), "one", dict, answers, *told())
        control.start()
        async with asyncio.timeout(5):
            await line.over.wait()
        await control.stop()
        assert line.answers == [("redisq:reply:y", True)]

    asyncio.run(check())


async def heard(url: str, subscribed: asyncio.Event, told: list[str]) -> AsyncIterator[bytes]:
    connector = Server(url, timeout=1).async_connector("test")
    async for message in messages(connector._client, "news", subscribed, lambda error: told.append(str(error)), look=0.05):
        yield message


def test_a_subscription_that_was_cut_without_a_word_is_noticed(redis_server: RedisServer, raw: redis.Redis) -> None:
    proxy = CuttingProxy(redis_server.port)

    async def check() -> None:
        subscribed, told = asyncio.Event(), list[str]()
        hearing = heard(f"redis://127.0.0.1:{proxy.port}", subscribed, told)
        next_one = asyncio.ensure_future(anext(hearing))
        async with asyncio.timeout(10):
            await subscribed.wait()
            proxy.silence()
            while not told:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await subscribed.wait()
        assert told == ["no answer to a ping"]
        raw.publish("news", "hello")
        assert await asyncio.wait_for(next_one, 10) == b"hello"
        # One that answers pings is left alone, however quiet it is.
        next_one = asyncio.ensure_future(anext(hearing))
        proxy.passed["request"].clear()
        async with asyncio.timeout(10):
            while proxy.passed["request"].count(b"PING") < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(told) == 1
        raw.publish("news", "again")
        assert await asyncio.wait_for(next_one, 10) == b"again"
        await hearing.aclose()  # type: ignore[attr-defined]

    asyncio.run(check())
    proxy.close()


def test_what_the_server_says_against_a_subscription_is_told() -> None:
    async def check(port: int) -> None:
        refused: list[BrokerError] = []
        connector = Server(f"redis://127.0.0.1:{port}", timeout=1).async_connector("test")
        hearing = connector.messages("redisq:control", asyncio.Event(), refused.append)
        next_one = asyncio.ensure_future(anext(hearing))
        async with asyncio.timeout(10):
            while not refused:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        next_one.cancel()
        assert "channel redisq:control: " in str(refused[0])
        assert "the server's ACL forbids this user a command, key or channel" in str(refused[0])

    with canned_server(b"-NOPERM this user has no permissions to access one of the channels used as arguments") as port:
        asyncio.run(check(port))
