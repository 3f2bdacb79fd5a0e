"""A server that is out of memory and evicts nothing: no new work, but the old work is finished."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Enqueue, Settlement
from redisq.broker.connector import Connector
from redisq.errors import BrokerFull
from tests.clock import scripts, set_clock
from tests.contracts.calls import CALLS, KEYS, LEASED, NOW
from tests.keyspace import everything, load

SCRIPTS = scripts()


@pytest.fixture
def full(raw: redis.Redis) -> Iterator[Connector]:
    """A connector to a server that is full. Scripts are known to it: it would not load them now."""
    load(raw, KEYS, LEASED)
    set_clock(raw, KEYS.prefix, NOW)
    for name in CALLS:
        raw.script_load(SCRIPTS[name].source)
    raw.config_set("maxmemory-policy", "noeviction")
    raw.config_set("maxmemory", 1)
    yield Connector(raw, SCRIPTS)
    raw.config_set("maxmemory", 0)


def test_an_enqueue_is_refused_and_changes_nothing(full: Connector, raw: redis.Redis) -> None:
    before = everything(raw)
    with pytest.raises(BrokerFull, match="raise maxmemory"):
        full.execute(CALLS["enqueue"])
    assert everything(raw) == before


def test_of_several_enqueues_in_one_write_each_is_refused(full: Connector) -> None:
    results = full.execute_many([CALLS["enqueue"], commands.enqueue(KEYS, [Enqueue("d", b"")])])
    assert [type(result) for result in results] == [BrokerFull, BrokerFull]


def test_waiting_messages_are_handed_out_and_expired_ones_taken_back(full: Connector) -> None:
    ids = [delivery.id for delivery in full.execute(CALLS["claim"]).deliveries]
    assert sorted(ids) == ["delayed", "expired", "retry", "waiting"]


@pytest.mark.parametrize("op", ["ack", "retry", "park", "release", "dead"])
def test_deliveries_end_as_ever(full: Connector, op: str) -> None:
    assert full.execute(commands.settle(KEYS, [Settlement(op, "a", 7, 10, "failed", "no")])) == []


def test_leases_are_extended_as_ever(full: Connector) -> None:
    assert full.execute(CALLS["extend"]) == {}


@pytest.mark.parametrize("script", ["inspect", "find", "wake"])
def test_looking_and_waking_go_on(full: Connector, script: str) -> None:
    full.execute(CALLS[script])


def test_messages_can_be_removed(full: Connector) -> None:
    assert full.execute(CALLS["remove"]) == ["waiting", "dead"]
