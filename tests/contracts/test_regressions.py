"""Bugs that the state machine found, each as the shortest sequence that shows it."""

from __future__ import annotations

import pytest

from tests.faces import LEASE, SECOND, Broker


def test_a_bulk_that_is_due_at_once_stays_behind_those_before_it(broker: Broker) -> None:
    # The bulk before gives out the ticks of the next microseconds: a due time among them is no place in the line.
    broker.enqueue("z", "y", "x")
    broker.enqueue("c", "b", "a", due="+0")
    assert broker.claimed_ids() == ["z", "y", "x", "c", "b", "a"]


def test_a_bulk_that_was_due_a_moment_ago_is_due_as_a_whole(broker: Broker) -> None:
    broker.enqueue("c", "b", "a", due=str(broker.now - 1))
    assert broker.claimed_ids() == ["c", "b", "a"]


def test_a_shorter_lease_in_the_same_queue_does_not_shorten_the_time_of_grace(broker: Broker) -> None:
    broker.enqueue("m")
    broker.claim(worker="patient")
    broker.pass_time(LEASE)
    broker.claim(limit=0, worker="hasty", lease=10 * SECOND)
    end_of_grace = broker.now + LEASE
    broker.pass_time(6 * SECOND)
    broker.claim(limit=0, worker="patient")
    broker.pass_time_busily(end_of_grace - 1 - broker.now)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["m"]


@pytest.mark.parametrize("state", ["waiting", "delayed", "retry", "processing", "dead"])
def test_an_id_whose_body_was_deleted_is_not_accepted_into_a_second_state(broker: Broker, state: str) -> None:
    broker.enqueue("m", due="+1" if state == "delayed" else "0")
    if state in ("retry", "processing", "dead"):
        delivery = broker.claim_one()
        if state != "processing":
            broker.settle(state, delivery, delay=1)
    broker.raw.hdel(broker.keys.named("messages"), "m")
    assert broker.enqueue("m", "n") == ["m"]
    view = broker.view()
    assert view.waiting + view.delayed + view.retry + view.processing + view.dead == 2
    assert broker.state_of("m") == state
