"""Connections break, in every way, under load: a worker says so once, goes on, and is never deaf."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from redisq.broker.connection import BLOCK_SECONDS
from tests.chaos.stage import Stage
from tests.integration.processes import wait_until
from tests.servers import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

#: Seconds in which a new message has to be handled once a fault is over.
AT_ONCE = 3.0


def _kill_all(stage: Stage) -> None:
    stage.tell(lambda client: client.client_kill_filter(_type="normal", skipme=True))


def _pause(stage: Stage) -> None:
    stage.tell(lambda client: client.client_pause(2000))
    time.sleep(2.0)


def _flush_scripts(stage: Stage) -> None:
    stage.tell(lambda client: client.script_flush())


def _fill_memory(stage: Stage) -> None:
    stage.tell(lambda client: client.config_set("maxmemory", "1mb"))
    wait_until(lambda: stage.left() == 0, "the workers drain a full server")
    stage.tell(lambda client: client.config_set("maxmemory", "0"))


def _demote(stage: Stage) -> None:
    stage.tell(lambda client: client.replicaof("127.0.0.1", free_port()))
    time.sleep(2.0)
    stage.tell(lambda client: client.replicaof("NO", "ONE"))


def _half_open(stage: Stage) -> None:
    stage.proxy.silence()


#: Name -> the fault; how often; seconds that it takes a worker to notice; how often it says that Redis is away, at least
#: and at most: a connection that is cut and there again at once is no outage, unless it is cut anew in that moment.
FAULTS: dict[str, tuple[Callable[[Stage], None], int, float, int, int]] = {
    "all connections are killed": (_kill_all, 8, 0.0, 0, 8),
    "the server pauses": (_pause, 2, 0.0, 0, 0),
    "scripts are flushed": (_flush_scripts, 8, 0.0, 0, 0),
    "memory is full": (_fill_memory, 3, 0.0, 0, 0),
    "the server is a replica": (_demote, 3, 0.0, 3, 3),
    "sockets are half open": (_half_open, 3, 2.0, 0, 3),
}


def _strike(stage: Stage, fault: Callable[[Stage], None], notice: float) -> float:
    """Let it happen once; how long after its end a new message was handled, which must not be long."""
    fault(stage)
    began = time.monotonic()
    number = stage.producer.send_first(1.0)
    wait_until(lambda: stage.ended(number), "a new message is handled", notice + AT_ONCE)
    return time.monotonic() - began


@pytest.mark.parametrize(("fault", "times", "notice", "least", "most"), FAULTS.values(), ids=FAULTS)
def test_a_fault_under_load(
    fault: Callable[[Stage], None], times: int, notice: float, least: int, most: int, set_up: Callable[..., Stage]
) -> None:
    patience = {"REDIS_TIMEOUT": str(notice)} if notice else {}
    stage = set_up("-c", "4", lease=10.0, proxied=bool(notice), **patience)
    stage.fleet.start(2)
    stage.producer.keep_sending(1, 5, ahead=100)
    wait_until(lambda: all(map(stage.fleet.is_at_work, stage.fleet.workers)), "all are at work")
    slowest = 0.0
    for _ in range(times):
        slowest = max(slowest, _strike(stage, fault, notice))
        time.sleep(1.0)  # the pace of the faults
    stage.producer.stop()
    stage.drain(30)
    _judge(stage, f"{fault.__name__.strip('_')}, {slowest:.2f} s until a new one was handled", least, most)


@pytest.mark.parametrize(("fault", "times", "notice", "least", "most"), FAULTS.values(), ids=FAULTS)
def test_a_fault_while_idle(
    fault: Callable[[Stage], None], times: int, notice: float, least: int, most: int, set_up: Callable[..., Stage]
) -> None:
    patience = {"REDIS_TIMEOUT": str(notice)} if notice else {}
    stage = set_up("-c", "4", lease=10.0, proxied=bool(notice), **patience)
    stage.fleet.start(1)
    wait_until(lambda: stage.ask(lambda client: client.info("clients")["blocked_clients"]), "it waits for work")
    # The longest that it blocks, before it may notice.
    after = _strike(stage, fault, notice and notice + BLOCK_SECONDS)
    stage.drain(30)
    _judge(stage, f"{fault.__name__.strip('_')} while idle, {after:.2f} s until a new one was handled", min(least, 1), 1)


def _judge(stage: Stage, name: str, least: int, most: int) -> None:
    verdict = stage.verdict(name)
    assert verdict.duplicates == []
    assert verdict.interrupted == []
    for log in stage.fleet.logs():
        lost, back = log.count("Lost Redis connection"), log.count("Redis connection is back")
        assert lost == back
        assert least <= lost <= most, log
        assert "ERROR" not in log
