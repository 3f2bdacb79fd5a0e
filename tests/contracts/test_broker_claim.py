"""What the broker promises a worker that asks for work."""

from __future__ import annotations

import pytest

from redisq.broker import commands
from redisq.message import PLAIN
from tests.faces import LEASE, SECOND, Broker


def test_a_claim_gives_no_more_than_it_was_asked_for(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    assert broker.claimed_ids(2) == ["a", "b"]
    assert broker.claimed_ids(2) == ["c"]
    assert broker.claimed_ids(2) == []


def test_a_claim_for_nothing_gives_nothing(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.claimed_ids(0) == []
    assert broker.state_of("a") == "waiting"


def test_a_claimed_message_is_handed_to_nobody_else(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim(worker="worker1")
    assert broker.claim(worker="worker2").deliveries == []
    found = broker.find("a")
    assert found
    assert (found.state, found.worker) == ("processing", "worker1")


def test_a_first_delivery_is_plain(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.claim_one().meta == PLAIN


def test_all_messages_of_one_claim_have_one_fence(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first, second = broker.claim().deliveries
    assert first.fence == second.fence


def test_fences_rise_with_every_claim(broker: Broker) -> None:
    fences = []
    for each in ("a", "b", "c"):
        broker.enqueue(each)
        fences.append(broker.claim_one().fence)
    assert fences == sorted(set(fences))


def test_fences_rise_when_a_message_is_released_and_claimed_at_once(broker: Broker) -> None:
    broker.enqueue("a")
    fences = []
    for _ in range(5):
        delivery = broker.claim_one()
        fences.append(delivery.fence)
        broker.settle("release", delivery)
    assert fences == sorted(set(fences))


def test_fences_rise_when_the_servers_clock_steps_back(broker: Broker) -> None:
    broker.enqueue("a", "b")
    before = broker.claim_one().fence
    broker.pass_time(-3600 * SECOND)
    assert broker.claim_one().fence > before


def test_an_empty_queue_has_nothing_due(broker: Broker) -> None:
    assert broker.claim().next_due is None


def test_a_claim_that_leaves_work_behind_says_so(broker: Broker) -> None:
    broker.enqueue("a", "b")
    assert broker.claim(limit=1).next_due == 0


def test_a_claim_says_when_its_leases_end(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.claim().next_due == LEASE / SECOND


def test_a_claim_says_when_the_next_delayed_message_is_due(broker: Broker) -> None:
    broker.enqueue("a", due=f"+{7 * SECOND}")
    broker.enqueue("b", due=f"+{9 * SECOND}")
    broker.pass_time(SECOND)
    assert broker.claim().next_due == 6


def test_a_claim_says_when_the_next_retry_is_due(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), delay=5 * SECOND)
    assert broker.claim().next_due == 5


def test_a_lease_in_a_time_of_grace_is_due_when_the_grace_ends(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim()
    broker.pass_time(2 * LEASE)
    assert broker.claim().next_due == LEASE / SECOND


def test_a_paused_queue_hands_nothing_out(broker: Broker) -> None:
    broker.enqueue("a")
    broker.configure("paused", "1")
    claimed = broker.claim()
    assert claimed.deliveries == []
    assert claimed.next_due is None
    assert broker.view().paused


def test_a_paused_queue_accepts_settles_and_takes_back(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first, _ = broker.claim().deliveries
    broker.configure("paused", "1")
    assert broker.enqueue("c") == []
    assert broker.ack(first) == []
    broker.pass_time_busily(LEASE)
    broker.claim()
    assert broker.state_of("b") == "waiting"


def test_a_queue_goes_on_when_its_pause_ends(broker: Broker) -> None:
    broker.enqueue("a")
    broker.configure("paused", "1")
    broker.claim()
    broker.raw.hdel(broker.keys.named("config"), "paused")
    assert broker.claimed_ids() == ["a"]


def test_a_message_without_a_body_becomes_a_dead_letter(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.raw.hdel(broker.keys.named("messages"), "a")
    assert broker.claimed_ids() == ["b"]
    found = broker.find("a")
    assert found
    assert (found.state, found.meta.reason) == ("dead", "body_missing")
    assert broker.stats()["dlq_messages"] == 1


@pytest.mark.parametrize("limit", [1, 1000])
def test_a_claim_is_as_large_as_it_may_be(broker: Broker, limit: int) -> None:
    ids = [f"m{place}" for place in range(limit)]
    broker.enqueue(*ids)
    assert broker.claimed_ids(limit) == ids


def test_of_those_that_have_to_run_apart_no_more_are_leased_than_there_is_room_for(broker: Broker) -> None:
    broker.enqueue("a", "b", "c", "new")
    for _ in range(2):
        assert broker.claimed_ids(3) == ["a", "b", "c"]
        broker.pass_time_busily(LEASE)
    claimed = broker.do(commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, apart=1))
    assert [delivery.id for delivery in claimed.deliveries] == ["a", "new"]
    assert broker.stats()["parked"] == 2
    broker.pass_time(SECOND)
    claimed = broker.do(commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, apart=2))
    assert [(each.id, each.meta.crashes) for each in claimed.deliveries] == [("b", 2), ("c", 2)]
