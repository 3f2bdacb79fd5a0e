"""What each end of a delivery does."""

from __future__ import annotations

import pytest

from redisq.broker.commands import Settlement
from redisq.message import Delivery, Meta
from tests.faces import LEASE, SECOND, Broker
from tests.keyspace import dump

#: Every way to end a delivery.
OPS = ("ack", "retry", "park", "release", "dead")


def test_an_acknowledged_message_is_gone(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.ack(broker.claim_one()) == []
    assert broker.find("a") is None
    assert broker.stats()["processed_requests"] == 1


def test_a_retry_waits_for_its_delay_and_counts_an_attempt(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), delay=5 * SECOND, reason="failed", text="ValueError: no")
    assert broker.state_of("a") == "retry"
    broker.pass_time(5 * SECOND - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claim_one().meta == Meta(attempt=2, reason="failed", text="ValueError: no")
    assert broker.stats()["retry_count"] == 1


def test_every_retry_counts_an_attempt(broker: Broker) -> None:
    broker.enqueue("a")
    attempts = []
    for _ in range(4):
        delivery = broker.claim_one()
        attempts.append(delivery.meta.attempt)
        broker.settle("retry", delivery, delay=0)
    assert attempts == [1, 2, 3, 4]


def test_a_retry_keeps_its_place_in_the_queue(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    broker.settle("retry", broker.claim_one(), delay=SECOND)
    broker.pass_time(SECOND)
    broker.enqueue("d")
    assert broker.claimed_ids() == ["a", "b", "c", "d"]


def test_a_parked_message_waits_and_spends_no_attempt(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("park", broker.claim_one(), delay=SECOND, reason="unknown_task")
    broker.pass_time(SECOND)
    assert broker.claim_one().meta == Meta(attempt=1, parks=1, reason="unknown_task")
    assert broker.stats()["parked"] == 1


def test_a_released_message_is_back_at_its_place_at_once_and_for_free(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first = broker.claim_one()
    broker.settle("release", first)
    again, _ = broker.claim().deliveries
    assert (again.id, again.meta) == ("a", first.meta)
    assert broker.stats()["released"] == 1


def test_a_released_retry_keeps_what_is_known_of_it(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), text="first")
    second = broker.claim_one()
    broker.settle("release", second)
    assert broker.claim_one().meta == second.meta


def test_a_dead_letter_is_kept_with_its_error(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("dead", broker.claim_one(), reason="exhausted", text="ValueError: text=x reason=y\nline 2 — ü")
    found = broker.find("a")
    assert found
    assert (found.state, found.body, found.worker) == ("dead", b"body of a", None)
    assert found.meta == Meta(reason="exhausted", text="ValueError: text=x reason=y\nline 2 — ü")
    assert broker.claimed_ids() == []
    assert broker.stats()["dlq_messages"] == 1


def test_an_empty_error_text_is_a_text(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), text="")
    assert broker.claim_one().meta == Meta(attempt=2, reason="failed")


def test_one_call_settles_many_in_many_ways(broker: Broker) -> None:
    broker.enqueue(*OPS)
    deliveries = broker.claim().deliveries
    stale = broker.settle_many((Settlement(each.id, each.id, each.fence, SECOND) for each in deliveries), run_time=1234)
    assert stale == []
    states = {op: broker.state_of(op) for op in OPS}
    assert states == {"ack": None, "retry": "retry", "park": "retry", "release": "waiting", "dead": "dead"}
    assert broker.stats()["run_time_us"] == 1234


def test_a_thousand_deliveries_are_settled_in_one_call(broker: Broker) -> None:
    broker.enqueue(*(f"m{place}" for place in range(1000)))
    assert broker.ack(*broker.claim(1000).deliveries) == []
    assert broker.view().processing == 0


@pytest.mark.parametrize("op", OPS)
def test_a_delivery_ends_once(broker: Broker, op: str) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    assert broker.settle(op, delivery, delivery, delay=SECOND) == ["a"]
    assert broker.settle("ack", delivery) == ["a"]
    assert broker.stats()["stale"] == 2


def _stale_claim_of_another(broker: Broker) -> Delivery:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.settle("release", delivery)
    broker.claim_one()
    return delivery


def _stale_never_leased(broker: Broker) -> Delivery:
    broker.enqueue("a")
    return Delivery("a", 1, b"")


def _stale_unknown_id(broker: Broker) -> Delivery:
    broker.enqueue("a")
    return Delivery("b", broker.claim_one().fence, b"")


def _stale_future_fence(broker: Broker) -> Delivery:
    broker.enqueue("a")
    return Delivery("a", broker.claim_one().fence + 1, b"")


STALE = (_stale_claim_of_another, _stale_never_leased, _stale_unknown_id, _stale_future_fence)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("make", STALE, ids=lambda make: make.__name__.removeprefix("_stale_").replace("_", " "))
def test_a_stale_end_changes_nothing_but_the_count_of_stale_ones(broker: Broker, op: str, make: type) -> None:
    delivery = make(broker)
    before = dump(broker.raw, broker.keys)
    assert broker.settle(op, delivery, delay=SECOND) == [delivery.id]
    after = dump(broker.raw, broker.keys)
    assert after["stats"].pop("stale") == 1
    for state in (before, after):
        del state["clock"], state["calls"]
    assert after == before


def test_a_stale_end_among_good_ones_spoils_none_of_them(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first, second = broker.claim().deliveries
    broker.settle("release", first)
    assert broker.ack(first, second) == ["a"]
    assert (broker.state_of("a"), broker.state_of("b")) == ("waiting", None)


def test_the_last_holder_may_acknowledge_late_while_nobody_got_the_message_since(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert broker.state_of("a") == "waiting"
    assert broker.ack(delivery) == []
    assert broker.find("a") is None
    assert broker.claimed_ids() == []
    stats = broker.stats()
    assert (stats["late_acks"], stats["processed_requests"], stats.get("stale")) == (1, 1, None)


def test_a_late_acknowledgement_is_refused_once_somebody_else_has_the_message(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["a"]
    assert broker.ack(delivery) == ["a"]
    assert broker.state_of("a") == "processing"


@pytest.mark.parametrize("op", ["retry", "park", "release", "dead"])
def test_only_an_acknowledgement_counts_after_the_lease_was_taken_back(broker: Broker, op: str) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert broker.settle(op, delivery) == ["a"]
    assert broker.state_of("a") == "waiting"


def test_settling_nothing_does_nothing(broker: Broker) -> None:
    assert broker.settle_many([]) == []
