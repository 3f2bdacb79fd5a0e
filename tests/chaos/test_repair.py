"""`redisq repair` is killed midway, between two pages and within one: a second run finishes what the first began."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from redisq.app.waiting import run
from redisq.broker import commands
from redisq.broker.commands import Enqueue, Settlement
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.repair import Losses, look
from redisq.broker.scripts import Scripts
from redisq.message import new_ids
from tests.chaos.stage import QUEUE, Stage
from tests.integration.processes import wait_until
from tests.servers import RedisServer
from tests.wire import CuttingProxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

KEYS = QueueKeys("q")
LEASE = 30_000_000
LANES, EACH, DELAYED = 20, 100, 1000
STATES = ("main", "delayed", "retry", "processing", "dlq")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(None).start()
    yield server
    server.close()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server.port)
    yield proxy
    proxy.close()


def repair(queue: str, port: int) -> subprocess.Popen[bytes]:
    """An operator's repair, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "redisq", "repair", queue, "--yes"],
        env={**os.environ, "REDISQ_URL": f"redis://127.0.0.1:{port}"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_when(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Kill it, unless it ends before; whether it was killed."""
    wait_until(lambda: condition() or process.poll() is not None, "the moment to kill it, or its end", 60)
    process.kill()
    return process.wait() == -signal.SIGKILL


def states(raw: redis.Redis) -> Counter[str]:
    """In how many states each message is."""
    return Counter(ident.decode() for state in STATES for ident in raw.zrange(KEYS.named(state), 0, -1))


#: The part of the queue that a page of the repair reads, the number of the page at which the repair is killed, and what is lost:
#: the request, or the reply.
KILLS = [
    (what, at, way)
    for what, at in (("run", 1), ("flows", 1), ("lanes", 1), ("delayed", 2), ("delayed", 9), ("messages", 1), ("messages", 11))
    for way in ("request", "reply")
]


@pytest.mark.parametrize("lost", [("queue:main",), ("queue:main", "needs", "run"), ("config", "queue:main", "lanes")], ids="+".join)
def test_a_repair_that_is_killed_is_finished_by_the_next(server: RedisServer, proxy: CuttingProxy, lost: tuple[str, ...]) -> None:
    raw = server.client()
    connector = Connector(raw, Scripts())
    waiting = new_ids(LANES * EACH)
    for lane in range(LANES):
        mine = waiting[lane * EACH : (lane + 1) * EACH]
        lines = [Enqueue(ident, b"body", descriptor=f"0 C @{lane}" if lane % 2 else "") for ident in mine]
        connector.execute(commands.enqueue(KEYS, lines))
    bodiless = new_ids(DELAYED)
    connector.execute(commands.enqueue(KEYS, [Enqueue(ident, b"body", due="+1000000000") for ident in bodiless]))
    raw.hdel(KEYS.named("messages"), *bodiless)
    raw.delete(*(f"{KEYS.prefix}:{name}" for name in lost))
    killed, ours = 0, len(raw.client_list())
    for what, at, way in KILLS:
        happened = proxy.swallow(way, f"\r\n{what}\r\n".encode(), at)
        killed += kill_when(repair(KEYS.queue, proxy.port), happened.is_set)
        wait_until(lambda: len(raw.client_list()) <= ours, "Redis has carried out all that it sent, and knows that it is gone")
        assert raw.hlen(KEYS.named("messages")) == len(waiting)
        found = states(raw)
        assert set(found) <= {*waiting, *bodiless}
        assert set(found.values()) <= {1}, "a message is in two states"
        assert set(bodiless) <= set(found)
    assert killed >= 8, "too many of the repairs had ended before"
    # Nobody listens for these words any more.
    proxy.swallow("reply", b"\r\nnever\r\n")
    assert repair(KEYS.queue, proxy.port).wait(60) == 0
    assert run(look(KEYS, LEASE), connector) == Losses()
    assert {ident.decode() for ident in raw.zrange(KEYS.named("main"), 0, -1)} == set(waiting)
    assert {ident.decode() for ident in raw.zrange(KEYS.named("dlq"), 0, -1)} == set(bodiless)
    assert raw.hget(KEYS.named("stats"), "dlq_messages") == str(DELAYED).encode(), "each death is counted once"
    ran: list[str] = []
    while claimed := connector.execute(commands.claim(KEYS, worker="w", limit=500, lease=LEASE, max_crashes=3)).deliveries:
        ran += [each.id for each in claimed]
        acks = [Settlement("ack", each.id, each.fence) for each in claimed]
        assert connector.execute(commands.settle(KEYS, acks)) == []
    assert sorted(ran) == sorted(waiting), "each runs once"


def test_repairs_are_killed_while_workers_run_what_they_put_back(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", "20", lease=10.0)
    sent = [number for _ in range(8) for number in stage.producer.send([1.0] * 500)]
    with stage.server.client() as raw:
        raw.delete(QUEUE.named("main"))
        stage.fleet.start(1)

        def fewer_lost_than(number: float) -> bool:
            return lost() < number

        def lost() -> int:
            return stage.app.connector.execute(commands.inspect(QUEUE)).stateless

        killed = sum(
            kill_when(repair(QUEUE.queue, stage.server.port), partial(fewer_lost_than, share * len(sent)))
            for share in (1.0, 0.9, 0.7, 0.4)
        )
        print(f"{killed} of 4 repairs were killed, {lost()} messages are still lost")
        assert killed
        assert repair(QUEUE.queue, stage.server.port).wait(60) == 0
    stage.drain(60)
    verdict = stage.verdict("repair")
    assert verdict.confirmed == len(sent)
    assert verdict.duplicates == []
