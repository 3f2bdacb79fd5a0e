"""What happens to a message whose worker died, hung, or lost the server."""

from __future__ import annotations

import pytest

from redisq.broker import commands
from redisq.broker.commands import Enqueue
from redisq.message import Delivery
from tests.faces import LEASE, SECOND, Broker


def test_a_message_is_not_handed_out_again_before_its_deadline(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim()
    broker.pass_time_busily(LEASE - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["a"]


def test_an_expired_lease_counts_a_crash_and_no_attempt(broker: Broker) -> None:
    broker.enqueue("a")
    first = broker.claim_one()
    broker.pass_time_busily(LEASE)
    again = broker.claim_one()
    assert (again.meta.crashes, again.meta.attempt) == (1, 1)
    assert again.fence > first.fence
    assert broker.stats()["crashes"] == 1


def test_a_message_taken_back_keeps_its_place(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.claim_one()
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["a", "b"]


def test_the_third_crash_makes_a_dead_letter(broker: Broker) -> None:
    broker.enqueue("a")
    for _ in range(3):
        assert broker.claimed_ids() == ["a"]
        broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == []
    found = broker.find("a")
    assert found
    assert (found.state, found.meta.reason, found.meta.crashes) == ("dead", "crashed", 3)
    stats = broker.stats()
    assert (stats["crashes"], stats["dlq_messages"]) == (3, 1)


def test_a_claim_names_the_dead_letters_that_it_makes_and_names_them_again_when_its_reply_was_lost(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    broker.claim(limit=1)
    broker.raw.hdel(f"{broker.keys.prefix}:messages", "b")
    broker.pass_time_busily(LEASE)
    for reply_is_lost in (True, False):
        if reply_is_lost:
            broker.lose_reply()
        claimed = broker.claim(max_crashes=1)
        dead = [(each.id, each.body, each.meta.reason) for each in claimed.dead]
        assert dead == ([("a", b"body of a", "crashed"), ("b", b"", "body_missing")] if reply_is_lost else [])
        assert [each.id for each in claimed.deliveries] == (["c"] if reply_is_lost else [])


def test_bodies_of_dead_letters_do_not_swell_a_claims_reply(broker: Broker) -> None:
    large = [Enqueue(each, each.encode() * 200_000) for each in "abc"]
    broker.do(commands.enqueue(broker.keys, large))
    broker.claim()
    broker.pass_time_busily(LEASE)
    assert [len(each.body) for each in broker.claim(max_crashes=1).dead] == [200_000, 0, 0]


def test_what_runs_apart_is_not_the_reason_when_its_worker_dies(broker: Broker) -> None:
    broker.enqueue("a")
    for _ in range(6):
        command = commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, apart=1)
        assert [delivery.id for delivery in broker.do(command).deliveries] == ["a"]
        broker.pass_time_busily(LEASE)
    # That often, it may be the reason all the same: it may have taken the whole machine with it.
    assert broker.do(commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, apart=1)).deliveries == []
    found = broker.find("a")
    assert found
    assert (found.state, found.meta.reason, found.meta.crashes) == ("dead", "crashed", 6)


def test_the_holder_of_a_crashed_dead_letter_comes_too_late(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(max_crashes=1)
    assert broker.ack(delivery) == ["a"]
    assert broker.state_of("a") == "dead"


def test_crashes_stay_counted_over_retries(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.settle("retry", broker.claim_one())
    meta = broker.claim_one().meta
    assert (meta.crashes, meta.attempt) == (1, 2)


def test_more_expired_leases_than_one_call_takes_back_come_with_the_next_calls(broker: Broker) -> None:
    ids = [f"m{place:03}" for place in range(250)]
    broker.enqueue(*ids)
    broker.claim(1000)
    broker.pass_time(LEASE // 2)
    broker.claim(limit=0)
    broker.pass_time(LEASE // 2)
    handed_out = []
    while deliveries := broker.claim(1000).deliveries:
        handed_out += [delivery.id for delivery in deliveries]
    assert handed_out == ids


def test_an_extended_lease_ends_later(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(LEASE // 3)
    assert broker.extend(delivery) == {}
    broker.pass_time_busily(LEASE - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["a"]


def test_a_deadline_moves_only_forwards(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    before = broker.find("a")
    assert broker.extend(delivery, lease=1) == {}
    assert broker.find("a") == before


def test_a_lease_past_its_deadline_can_be_extended_until_it_is_taken_back(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(2 * LEASE)
    assert broker.extend(delivery) == {}
    assert broker.claimed_ids() == []


def test_extending_many_leases_tells_which_are_lost(broker: Broker) -> None:
    broker.enqueue("mine", "released", "acked", "taken")
    mine, released, acked, taken = broker.claim().deliveries
    broker.ack(acked)
    broker.settle("release", released)
    broker.claim()
    unknown = Delivery("unknown", mine.fence, b"")
    foreign = Delivery("taken", taken.fence + 1, b"")
    verdicts = broker.extend(mine, released, acked, unknown, foreign)
    assert verdicts == {"released": "lost", "acked": "lost", "unknown": "lost", "taken": "lost"}


def test_a_lease_taken_back_is_lost(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert broker.extend(delivery) == {"a": "lost"}
    assert broker.state_of("a") == "waiting"


def test_extending_nothing_does_nothing(broker: Broker) -> None:
    assert broker.extend() == {}


@pytest.mark.parametrize("gap", [LEASE // 2 + SECOND, LEASE, 3600 * SECOND])
def test_after_a_gap_no_lease_is_taken_back_for_one_lease_time(broker: Broker, gap: int) -> None:
    broker.enqueue("a")
    broker.claim()
    broker.pass_time(gap)
    broker.claim(limit=0)
    end_of_grace = broker.now + LEASE
    broker.pass_time_busily(LEASE - 1)
    assert broker.claimed_ids() == []
    broker.set_time(end_of_grace)
    assert broker.claimed_ids() == ["a"]


@pytest.mark.parametrize("first", ["enqueue", "extend", "settle"])
def test_whoever_comes_first_after_a_gap_starts_the_time_of_grace(broker: Broker, first: str) -> None:
    broker.enqueue("a", "b", "c")
    held, settled, _ = broker.claim().deliveries
    broker.pass_time(LEASE)
    {"enqueue": lambda: broker.enqueue("d"), "extend": lambda: broker.extend(held), "settle": lambda: broker.ack(settled)}[first]()
    assert "c" not in broker.claimed_ids()


def test_a_quiet_time_of_half_a_lease_is_no_gap(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim()
    broker.pass_time(LEASE // 2)
    broker.claim(limit=0)
    broker.pass_time(LEASE // 2)
    assert broker.claimed_ids() == ["a"]


def test_delayed_messages_are_promoted_in_a_time_of_grace(broker: Broker) -> None:
    broker.enqueue("held")
    broker.claim()
    broker.enqueue("a", due=f"+{SECOND}")
    broker.pass_time(2 * LEASE)
    assert broker.claimed_ids() == ["a"]
