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
