"""A connection that was left in the middle of a call is not used for the next: its reply would be taken for another's."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Command
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys

KEYS = QueueKeys("chat_api")
WAIT = commands.wait([KEYS], 1)


def _blocked(raw: redis.Redis) -> bool:
    return bool(raw.info("clients")["blocked_clients"])


def test_a_cancelled_call_leaves_no_reply_for_the_next(raw: redis.Redis, redis_url: str) -> None:
    async def cancel_and_look() -> None:
        connector = Server(redis_url, max_connections=1).async_connector("test", block=1)
        waiting = asyncio.ensure_future(connector.execute(WAIT))
        while not await asyncio.to_thread(_blocked, raw):
            pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await connector.execute(commands.wake(KEYS))
        assert (await connector.execute(commands.inspect(KEYS))).waiting == 0
        assert await connector.execute(WAIT) == "chat_api:wake"
        await connector.aclose()

    asyncio.run(cancel_and_look())


def test_many_calls_at_once_get_their_own_replies(raw: redis.Redis, redis_url: str) -> None:
    echoes: list[Command[bytes]] = [Command("", KEYS, ("ECHO", str(number)), lambda reply: reply) for number in range(50)]
    expected = [str(number).encode() for number in range(50)]

    async def at_once() -> list[bytes]:
        connector = Server(redis_url, max_connections=4).async_connector("test")
        replies = await asyncio.gather(*(connector.execute(echo) for echo in echoes))
        await connector.aclose()
        return replies

    assert asyncio.run(at_once()) == expected

    connector = Server(redis_url, max_connections=4).connector("test")
    replies: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda place=place: replies.update({place: connector.execute(echoes[place])}))
        for place in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connector.close()
    assert [replies[place] for place in range(50)] == expected
    assert raw.info("stats")["rejected_connections"] == 0


def test_a_pipeline_of_good_and_bad_commands_gets_each_its_own_reply(raw: redis.Redis, redis_url: str) -> None:
    raw.set("foreign:string", "x")
    many = [
        Command("", KEYS, ("GET", "foreign:string"), lambda reply: reply),
        Command("", KEYS, ("ZCARD", "foreign:string"), lambda reply: reply),
        Command("", KEYS, ("ECHO", "y"), lambda reply: reply),
    ]
    connector = Server(redis_url).connector("test")
    first, second, third = connector.execute_many(many)
    assert (first, type(second).__name__, third) == (b"x", "QueueConflict", b"y")
    connector.close()


def _connections(raw: redis.Redis) -> list[str]:
    return [client["name"] for client in raw.client_list() if client["name"].startswith("redisq:")]


def test_close_lets_the_calls_of_other_threads_end(raw: redis.Redis, redis_url: str) -> None:
    connector = Server(redis_url).connector("test")
    replies: list[object] = []
    block = Command("", KEYS, ("BLPOP", "list", "5"), lambda reply: reply)
    threads = [threading.Thread(target=lambda: replies.append(connector.execute(block))) for _ in range(3)]
    for thread in threads:
        thread.start()
    while raw.info("clients")["blocked_clients"] < 3:
        pass
    connector.close()
    raw.rpush("list", "a", "b", "c")
    for thread in threads:
        thread.join()
    assert sorted(reply[1] for reply in replies) == [b"a", b"b", b"c"]  # type: ignore[index]
    assert connector.execute(commands.inspect(KEYS)).waiting == 0
    while _connections(raw):
        pass


def test_close_lets_the_calls_of_other_coroutines_end(raw: redis.Redis, redis_url: str) -> None:
    block = Command("", KEYS, ("BLPOP", "list", "5"), lambda reply: reply)

    async def close_and_look() -> None:
        connector = Server(redis_url).async_connector("test")
        calls = [asyncio.create_task(connector.execute(block)) for _ in range(3)]
        while raw.info("clients")["blocked_clients"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await connector.aclose()
        raw.rpush("list", "a", "b", "c")
        assert sorted(reply[1] for reply in await asyncio.gather(*calls)) == [b"a", b"b", b"c"]
        while _connections(raw):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await connector.execute(commands.inspect(KEYS))).waiting == 0
        while _connections(raw):  # noqa: ASYNC110
            await asyncio.sleep(0)

    asyncio.run(close_and_look())


def test_a_cancelled_close_leaves_no_connection_open(raw: redis.Redis, redis_url: str) -> None:
    async def close() -> None:
        connector = Server(redis_url).async_connector("test")
        await asyncio.gather(*(connector.execute(commands.inspect(KEYS)) for _ in range(5)))
        closing = asyncio.create_task(connector.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        while _connections(raw):  # noqa: ASYNC110
            await asyncio.sleep(0)

    asyncio.run(close())


def test_a_call_that_is_cancelled_at_any_step_leaves_no_reply_for_the_next(redis_url: str) -> None:
    """Also while it connects and says its name."""

    async def cancel_after(turns: int) -> bool:
        connector = Server(redis_url, max_connections=1).async_connector("test")
        call = asyncio.create_task(connector.execute(Command("", KEYS, ("ECHO", "first"), lambda reply: reply)))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        for number in range(3):
            echo: Command[bytes] = Command("", KEYS, ("ECHO", str(number)), lambda reply: reply)
            assert await connector.execute(echo) == str(number).encode()
        await connector.aclose()
        return was_done

    turns = 0
    while not asyncio.run(cancel_after(turns)):
        turns += 1
    assert turns > 3


def test_a_cancelled_subscriber_is_forgotten(redis_url: str) -> None:
    async def cancel() -> None:
        connector = Server(redis_url).async_connector("test")

        async def listen(channel: str) -> None:
            async with connector.listening(channel) as event:
                await event.wait()
                await asyncio.Event().wait()

        first = asyncio.create_task(listen("first"))
        while not connector._listeners._pubsub:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for turns in range(10):
            second = asyncio.create_task(listen("second"))
            for _ in range(turns):
                await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            assert set(connector._listeners._heard) == {"first"}
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await connector.aclose()

    asyncio.run(cancel())
