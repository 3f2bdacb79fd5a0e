"""Whose keys the broker works on, and whose it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redisq.broker import commands
from redisq.errors import QueueConflict
from redisq.message import Delivery
from tests.faces import LEASE, Broker
from tests.keyspace import everything

CALLS: dict[str, Callable[[Broker], object]] = {
    "enqueue": lambda broker: broker.enqueue("a"),
    "claim": lambda broker: broker.claim(),
    "settle": lambda broker: broker.ack(Delivery("a", 1, b"")),
    "extend": lambda broker: broker.extend(Delivery("a", 1, b"")),
    "inspect": lambda broker: broker.view(),
    "find": lambda broker: broker.find("a"),
    "wake": lambda broker: broker.do(commands.wake(broker.keys)),
}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("ZADD", ("chat_api:queue:main", 1, "their id")),
        ("HSET", ("chat_api:meta", "their id", "theirs")),
    ],
)
def test_another_programs_keys_are_refused_and_left_as_they_are(
    broker: Broker, call: Callable[[Broker], object], command: str, args: tuple[object, ...]
) -> None:
    broker.raw.execute_command(command, *args)
    before = everything(broker.raw)
    with pytest.raises(QueueConflict, match="queue chat_api has content but no layout"):
        call(broker)
    assert everything(broker.raw) == before


@every_call
@pytest.mark.parametrize("layout", ["2", ""])
def test_a_layout_of_another_version_is_refused_and_left_as_it_is(
    broker: Broker, call: Callable[[Broker], object], layout: str
) -> None:
    broker.enqueue("a")
    broker.configure("layout", layout)
    before = everything(broker.raw)
    with pytest.raises(QueueConflict, match="this redisq knows layout 1"):
        call(broker)
    assert everything(broker.raw) == before


@every_call
def test_a_call_on_an_unused_queue_is_fine(broker: Broker, call: Callable[[Broker], object]) -> None:
    call(broker)


def test_counters_of_the_system_before_are_counted_on(broker: Broker) -> None:
    old = {"total_messages": 41, "processed_requests": 7, "retry_count": 3, "dlq_messages": 1}
    broker.raw.hset("chat_api:stats", mapping=old)
    broker.enqueue("a")
    broker.ack(broker.claim_one())
    assert broker.stats() == old | {"total_messages": 42, "processed_requests": 8}


def test_a_queue_can_be_configured_before_it_is_used(broker: Broker) -> None:
    broker.configure("paused", "1")
    broker.enqueue("a")
    assert broker.claimed_ids() == []


def test_two_queues_do_not_touch_each_other(broker: Broker) -> None:
    other = broker.at("chat_api2")
    broker.enqueue("a")
    other.enqueue("a", "b")
    broker.ack(broker.claim_one())
    assert (other.view().waiting, other.stats()["total_messages"]) == (2, 2)
    assert other.claim().deliveries[0].id == "a"


def test_two_namespaces_do_not_touch_each_other(broker: Broker) -> None:
    other = broker.at("chat_api", namespace="staging")
    other.enqueue("a")
    assert broker.find("a") is None
    assert broker.claimed_ids() == []
    assert other.claimed_ids() == ["a"]
    assert all(key.startswith((b"staging:chat_api:", b"chat_api:")) for key in broker.raw.keys("*"))


def test_a_lease_of_one_queue_means_nothing_to_another(broker: Broker) -> None:
    other = broker.at("other")
    broker.enqueue("a")
    other.enqueue("a")
    delivery = broker.claim_one()
    assert other.ack(delivery) == ["a"]
    assert other.extend(delivery, lease=LEASE) == {"a": "lost"}
