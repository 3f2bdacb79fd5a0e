"""A Redis user who may use no channel can run everything: what is published is only a hint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from redisq import RedisQ, Worker
from redisq.broker import commands
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys
from tests.faces import Broker
from tests.servers import RedisServer

KEYS = QueueKeys("chat_api")
URL = "redis://bot:pw@127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "bot", "on", ">pw", "~*", "+@all", "resetchannels")
        yield server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def broker(server: RedisServer, raw: redis.Redis) -> Iterator[Broker]:
    connector = Server(URL.format(port=server.port)).connector("test")
    opened = Broker(connector.execute, connector, raw, KEYS)
    yield opened
    connector.close()


def _states(raw: redis.Redis, ident: str) -> list[str]:
    return [state for state in ("main", "delayed", "retry", "processing", "dlq") if raw.zscore(f"chat_api:queue:{state}", ident)]


@pytest.mark.parametrize(("op", "states"), [("ack", []), ("dead", ["dlq"]), ("retry", ["retry"]), ("release", ["main"])])
def test_a_message_is_settled_whole(broker: Broker, raw: redis.Redis, op: str, states: list[str]) -> None:
    broker.enqueue("a", "b")
    first, second = broker.claim().deliveries
    assert broker.settle(op, first, second, delay=10**6 if op == "retry" else 0) == []
    assert (_states(raw, "a"), _states(raw, "b")) == (states, states)


def test_a_message_is_cancelled_and_dropped_whole(broker: Broker, raw: redis.Redis) -> None:
    broker.enqueue("a", "b")
    broker.enqueue("c", expires="+1")
    broker.do(commands.remove(KEYS, ["a"], counter="cancelled", states=["waiting"]))
    assert broker.claimed_ids() == ["b"]
    assert (_states(raw, "a"), _states(raw, "b"), _states(raw, "c")) == ([], ["processing"], [])


def test_a_worker_and_its_callers_do_without_channels(server: RedisServer, raw: redis.Redis) -> None:
    app = RedisQ("chat_api", url=URL.format(port=server.port))
    runs: list[int] = []

    @app.task(result_ttl=60)
    async def answer(number: int) -> int:
        runs.append(number)
        return number

    async def work() -> None:
        async with Worker(app):
            jobs = await answer.adelay_many([(number,) for number in range(20)])
            assert [await job.aget(timeout=20) for job in jobs] == list(range(20))
        await app.aclose()

    asyncio.run(work())
    assert sorted(runs) == list(range(20))
    assert raw.zcard("chat_api:queue:processing") == 0
