"""In which order, and when, messages are handed out."""

from __future__ import annotations

import pytest

from redisq.broker import commands
from redisq.broker.commands import Enqueue
from redisq.errors import ProtocolError
from tests.clock import START
from tests.faces import SECOND, Broker


def test_messages_of_one_call_come_out_in_its_order(broker: Broker) -> None:
    ids = [f"m{place}" for place in range(50, 0, -1)]
    broker.enqueue(*ids)
    assert broker.claimed_ids() == ids


def test_messages_of_one_microsecond_come_out_in_the_order_of_their_calls(broker: Broker) -> None:
    for each in ("z", "y", "x", "w"):
        broker.enqueue(each)
    assert broker.claimed_ids() == ["z", "y", "x", "w"]


def test_order_holds_when_a_bulk_runs_ahead_of_the_clock(broker: Broker) -> None:
    bulk = [f"m{place}" for place in range(100, 0, -1)]
    broker.enqueue(*bulk)
    broker.pass_time(1)
    broker.enqueue("after")
    assert broker.claimed_ids(101) == [*bulk, "after"]


def test_order_holds_when_the_servers_clock_steps_back(broker: Broker) -> None:
    broker.enqueue("b")
    broker.pass_time(-3600 * SECOND)
    broker.enqueue("a")
    assert broker.claimed_ids() == ["b", "a"]


@pytest.mark.parametrize(
    ("head_start", "order"),
    [(60 * SECOND, ["urgent", "old", "new"]), (5 * SECOND, ["old", "urgent", "new"]), (0, ["old", "new", "urgent"])],
    ids=["a long head start passes all", "a short one only those who came just now", "none is the end of the line"],
)
def test_priority_is_a_head_start(broker: Broker, head_start: int, order: list[str]) -> None:
    broker.enqueue("old")
    broker.pass_time(10 * SECOND)
    broker.enqueue("new")
    broker.enqueue("urgent", head_start=head_start)
    assert broker.claimed_ids() == order


def test_a_message_of_low_priority_is_not_passed_by_those_who_come_later_than_the_head_start(broker: Broker) -> None:
    broker.enqueue("patient")
    broker.pass_time(60 * SECOND + 1)
    broker.enqueue("urgent", head_start=60 * SECOND)
    assert broker.claimed_ids(1) == ["patient"]


def test_the_largest_head_start_keeps_order_within_its_priority(broker: Broker) -> None:
    head_start = 255 * 10_000_000 * SECOND
    broker.enqueue("plain")
    broker.enqueue("b", "a", head_start=head_start)
    assert broker.claimed_ids() == ["b", "a", "plain"]


@pytest.mark.parametrize("due", [f"+{10 * SECOND}", str(START + 10 * SECOND)], ids=["relative", "absolute"])
def test_a_delayed_message_is_never_handed_out_early(broker: Broker, due: str) -> None:
    broker.enqueue("a", due=due)
    assert broker.state_of("a") == "delayed"
    broker.pass_time(10 * SECOND - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["a"]


@pytest.mark.parametrize("due", ["+0", "1", str(START)], ids=["zero", "long past", "now"])
def test_a_message_whose_time_has_come_waits_at_once(broker: Broker, due: str) -> None:
    broker.enqueue("a", due=due)
    assert broker.state_of("a") == "waiting"


def test_messages_of_one_call_that_are_due_together_keep_their_order(broker: Broker) -> None:
    ids = [f"m{place}" for place in range(20, 0, -1)]
    broker.enqueue(*ids, due=f"+{SECOND}")
    broker.pass_time(SECOND + len(ids))
    assert broker.claimed_ids() == ids


def test_a_delayed_message_takes_the_place_of_its_due_time(broker: Broker) -> None:
    broker.enqueue("delayed", due=f"+{SECOND}")
    broker.pass_time(2 * SECOND)
    broker.enqueue("new")
    assert broker.claimed_ids() == ["delayed", "new"]


def test_a_delayed_message_of_high_priority_has_its_head_start_too(broker: Broker) -> None:
    broker.enqueue("delayed", due=f"+{SECOND}", head_start=60 * SECOND)
    broker.enqueue("plain")
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["delayed", "plain"]


def test_more_due_messages_than_one_call_promotes_come_with_the_next_calls_in_order(broker: Broker) -> None:
    ids = [f"m{place:03}" for place in range(250)]
    broker.enqueue(*ids, due=f"+{SECOND}")
    broker.pass_time(2 * SECOND)
    handed_out = []
    while (claimed := broker.claim(1000)).deliveries:
        handed_out += [delivery.id for delivery in claimed.deliveries]
        assert claimed.next_due == (0 if len(handed_out) < 250 else pytest.approx(30))
    assert handed_out == ids


def test_a_time_beyond_what_a_score_holds_exactly_is_refused(broker: Broker) -> None:
    with pytest.raises(ProtocolError, match="due time"):
        broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"", due=f"+{2**53 - START}")]))
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"", due=f"+{2**53 - 1 - START}")]))
    found = broker.find("a")
    assert found
    assert found.score == 2**53 - 1
