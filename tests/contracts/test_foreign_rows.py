"""Rows of a queue that another program wrote: they hurt no neighbour, and can be looked at and removed."""

from __future__ import annotations

from typing import TypeVar

import pytest

from redisq.broker import commands
from redisq.broker.queues import Steps
from redisq.broker.sweep import remove_all, replay_all
from redisq.errors import DecodeError
from redisq.message import check_id
from tests.faces import LEASE, SECOND, Broker

T = TypeVar("T")

ODD = b"caf\xe9"
#: The same, as commands and replies have it.
NAMED = "caf\udce9"


def _put(broker: Broker, key: str, score: int = 0) -> None:
    broker.configure("layout", "1")
    broker.raw.hset("chat_api:messages", ODD, b"body")
    broker.raw.zadd(broker.keys.named(key), {ODD: score})


def test_an_id_that_is_not_utf8_takes_no_lease_from_its_neighbours(broker: Broker) -> None:
    broker.enqueue("a", "b")
    _put(broker, "main")
    odd, first, second = broker.claim().deliveries
    assert (odd.id, first.id, second.id) == (NAMED, "a", "b")
    with pytest.raises(DecodeError, match="not UTF-8"):
        check_id(odd)
    assert broker.extend(odd, first, second) == {}
    assert broker.settle("dead", odd) == []
    assert broker.ack(first, second) == []
    assert broker.raw.zrange("chat_api:queue:dlq", 0, -1) == [ODD]


def test_an_id_that_is_not_utf8_is_named_in_each_answer(broker: Broker) -> None:
    _put(broker, "main")
    (odd,) = broker.claim().deliveries
    assert broker.do(commands.cancel(broker.keys, [NAMED])) == [NAMED]
    assert broker.extend(odd) == {NAMED: "cancel"}
    assert broker.do(commands.restore(broker.keys, [(NAMED, odd.fence + 1)])).stale == [NAMED]
    assert broker.settle("dead", odd._replace(fence=odd.fence + 1)) == [NAMED]
    assert broker.state_of(NAMED) == "processing"
    assert broker.do(commands.outcome(broker.keys, NAMED)).state == "open"


@pytest.mark.parametrize(("key", "state"), [("main", "waiting"), ("delayed", "delayed"), ("retry", "retry"), ("dlq", "dead")])
def test_an_id_that_is_not_utf8_is_shown_and_removed(broker: Broker, key: str, state: str) -> None:
    _put(broker, key, broker.now + SECOND)
    (row,) = broker.do(commands.browse(broker.keys, state, offset=0, limit=10))
    assert row.id == NAMED
    assert broker.do(commands.remove(broker.keys, [row.id], counter="dropped", states=[state])) == [NAMED]
    assert broker.raw.exists("chat_api:messages") == 0


def _swept(broker: Broker, steps: Steps[T]) -> T:
    # A sweep yields commands and gets their results.
    result = None
    while True:
        try:
            result = broker.do(steps.send(result))  # type: ignore[arg-type]
        except StopIteration as stop:
            swept: T = stop.value
            return swept


def test_a_sweep_takes_an_id_that_is_not_utf8(broker: Broker) -> None:
    _put(broker, "dlq", broker.now)
    assert _swept(broker, replay_all(broker.keys)) == (1, {})
    assert broker.state_of(NAMED) == "waiting"
    assert _swept(broker, remove_all(broker.keys, ["waiting"], "purged")) == 1
    assert broker.state_of(NAMED) is None


HUGE = "9" * 5000


def test_a_number_of_thousands_of_digits_hurts_nobody(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.raw.hset("chat_api:meta", "a", f"attempt={HUGE} crashes=1")
    broker.raw.hset("chat_api:stats", "released_by_others", HUGE)
    assert [row.meta.attempt for row in broker.do(commands.browse(broker.keys, "waiting", offset=0, limit=10))] == [1, 1]
    first, second = broker.claim().deliveries
    assert (first.meta.attempt, first.meta.crashes, second.id) == (1, 1, "b")
    assert broker.find("a") is not None
    assert "released_by_others" not in broker.stats()


@pytest.mark.parametrize("record", [b"hello", b"7", b"7 5", b"7 5 \xff", b"\xff"])
def test_a_lease_record_that_is_none_can_be_looked_at(broker: Broker, record: bytes) -> None:
    broker.enqueue("a")
    broker.claim(lease=LEASE)
    broker.raw.hset("chat_api:leases", "a", record)
    found = broker.find("a")
    assert found is not None
    assert found.state == "processing"
