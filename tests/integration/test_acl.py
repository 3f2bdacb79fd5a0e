"""A Redis user with few rights: one who may use no channel, and one with no more than the deployment guide lists."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from redisq import RedisQ, Worker
from redisq.app.waiting import run
from redisq.broker import commands
from redisq.broker.connection import Server
from redisq.broker.health import Level, judge
from redisq.broker.keys import QueueKeys
from redisq.broker.vitals import read_vitals
from redisq.errors import JobFailed
from tests.clock import scripts
from tests.faces import LEASE, SECOND, Broker
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
    connector = Server(URL.format(port=server.port), scripts=scripts()).connector("test")
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
    broker.pass_time(SECOND)
    broker.do(commands.remove(KEYS, ["a"], counter="cancelled", states=["waiting"]))
    assert broker.claimed_ids() == ["b"]
    assert (_states(raw, "a"), _states(raw, "b"), _states(raw, "c")) == ([], ["processing"], [])


def test_a_message_that_a_claim_buries_is_buried_whole(broker: Broker, raw: redis.Redis) -> None:
    broker.enqueue("crashes", "bodiless")
    for _ in range(3):
        broker.claim(max_crashes=3)
        broker.pass_time_busily(2 * LEASE)
    raw.hdel("chat_api:messages", "bodiless")
    broker.claim(max_crashes=3)
    assert (_states(raw, "crashes"), _states(raw, "bodiless")) == (["dlq"], ["dlq"])


def test_a_message_that_expired_is_kept_whole(broker: Broker, raw: redis.Redis) -> None:
    broker.do(commands.declare(KEYS, keep_expired=True))
    broker.enqueue("a", expires="+1")
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == []
    assert _states(raw, "a") == ["dlq"]


@pytest.mark.parametrize(("limit", "states"), [(0, ["main"]), (1, ["dlq"])])
def test_leases_are_given_back_whole(broker: Broker, raw: redis.Redis, limit: int, states: list[str]) -> None:
    broker.enqueue("a", "b")
    first, second = broker.claim().deliveries
    assert broker.do(commands.cancel(KEYS, ["b"])) == ["b"]
    assert broker.do(commands.restore(KEYS, [("a", first.fence), ("b", second.fence)], limit=limit)).stale == []
    assert (_states(raw, "a"), _states(raw, "b")) == (states, [])


def test_an_idle_worker_is_woken(broker: Broker) -> None:
    broker.do(commands.wake(KEYS))
    assert broker.do(commands.wait([KEYS], 1)) == KEYS.wake


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


def _allow_what_the_guide_says(raw: redis.Redis) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md"
    found = re.search(r"<!-- file: minimal.acl -->\n```text\nuser bot (.*)\n```", guide.read_text("utf-8"))
    assert found
    rules = found[1].replace(">password", ">pw").split()
    if "&" in found[1] and int(raw.info("server")["redis_version"].split(".")[0]) < 7:
        rules = [rule for rule in rules if not rule.startswith("&")]
    raw.execute_command("ACL", "LOG", "RESET")
    raw.execute_command("ACL", "SETUSER", "modest", "reset", *rules)


def test_doctor_finds_no_error_with_the_rights_of_the_guide(server: RedisServer, raw: redis.Redis) -> None:
    _allow_what_the_guide_says(raw)
    app = RedisQ("chat_api", url=f"redis://modest:pw@127.0.0.1:{server.port}")
    app.send("answer", ("hi",))
    steps = read_vitals({}, [app.keys("chat_api")])
    findings = {finding.check: finding for finding in judge(run(steps, app.connector))}
    assert {check for check, finding in findings.items() if finding.level is Level.ERROR} == set()
    assert "Celery and kombu need PTTL, XADD" in findings["rights"].text
    app.close()
    raw.execute_command("ACL", "DELUSER", "modest")


def test_producer_and_worker_do_with_the_rights_of_the_guide(
    server: RedisServer, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    _allow_what_the_guide_says(raw)
    app = RedisQ("chat_api", url=f"redis://modest:pw@127.0.0.1:{server.port}")
    began, ended = asyncio.Event(), asyncio.Event()

    @app.task(result_ttl=60, max_retries=1, retry_backoff=0.01, key="{name}", limits=["bot:1000/s", "llm: 2 at once"])
    async def answer(name: str) -> str:
        if name == "fails":
            raise ValueError(name)
        if name == "waits":
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return name

    async def work() -> None:
        async with Worker(app):
            jobs = await answer.adelay_many([(f"chat {number}",) for number in range(20)])
            assert [await job.aget(timeout=20) for job in jobs] == [f"chat {number}" for number in range(20)]
            once = answer.options(dedupe_key="once", countdown=0.01)
            assert await (await once.adelay("once")).aget(timeout=20) == "once"
            with pytest.raises(JobFailed):
                await (await answer.adelay("fails")).aget(timeout=20)
            waiting = await answer.adelay("waits")
            await began.wait()
            assert await waiting.acancel()
            await ended.wait()
        await app.aclose()

    asyncio.run(work())
    assert [record.message for record in caplog.records if "NOPERM" in record.message or "AccessDenied" in record.message] == []
    assert raw.zcard("chat_api:queue:processing") == 0
    assert raw.execute_command("ACL", "LOG") == []
    raw.execute_command("ACL", "DELUSER", "modest")
