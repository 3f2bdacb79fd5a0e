"""What an operator can read."""

from __future__ import annotations

from typing import Any

import pytest

from redisq.broker import commands
from redisq.broker.commands import QueueView
from redisq.message import PLAIN, new_id, new_ids, with_head_start
from tests.clock import START
from tests.faces import LEASE, SECOND, Broker
from tests.keyspace import everything

#: What a step of priority is worth in the kombu transport.
HALF_A_YEAR = 180 * 86_400 * SECOND


def _one_of_each(broker: Broker) -> None:
    broker.enqueue("held", "retried", "dead")
    _, retried, dead = broker.claim().deliveries
    broker.settle("retry", retried, delay=60 * SECOND)
    broker.settle("dead", dead, reason="exhausted")
    broker.enqueue("delayed", due=f"+{60 * SECOND}")
    broker.enqueue("waiting1", "waiting2")


def test_an_unused_queue_is_empty(broker: Broker) -> None:
    assert broker.view() == QueueView(0, 0, 0, 0, 0, False, None, {})


def test_the_lengths_of_all_states_and_the_counters_are_seen_at_one_moment(broker: Broker) -> None:
    _one_of_each(broker)
    broker.pass_time(3 * SECOND)
    view = broker.view()
    assert (view.waiting, view.delayed, view.retry, view.processing, view.dead) == (2, 1, 1, 1, 1)
    assert view.stats == {"total_messages": 6, "retry_count": 1, "dlq_messages": 1}
    assert view.oldest_age
    assert round(view.oldest_age, 3) == 3


def _waits(broker: Broker, head_start: int, **options: Any) -> str:
    """A message as producers send it: its id tells its head start."""
    ident = with_head_start(new_id(), head_start)
    broker.enqueue(ident, head_start=head_start, **options)
    return ident


@pytest.mark.parametrize("head_start", [0, 9 * 60 * SECOND, 1, -9 * 60 * SECOND, 9 * HALF_A_YEAR, -9 * HALF_A_YEAR])
def test_a_message_of_any_priority_is_as_old_as_its_wait(broker: Broker, head_start: int) -> None:
    _waits(broker, head_start)
    broker.pass_time(SECOND)
    assert broker.view().oldest_age == 1


@pytest.mark.parametrize("step", [60 * SECOND, HALF_A_YEAR])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_oldest_is_the_oldest_whatever_came_ahead_of_it(broker: Broker, step: int, sign: int) -> None:
    for head_starts in ([0, 1, 9], [9, 1, 0], [1, 9, 0, 9]):
        for level in head_starts:
            _waits(broker, sign * level * step)
            broker.pass_time(7 * SECOND)
        # A tick is a microsecond ahead of the time when several fall into one.
        assert broker.view().oldest_age == pytest.approx(7 * len(head_starts), abs=0.001)
        for delivery in broker.claim().deliveries:
            broker.ack(delivery)


def test_the_oldest_is_found_behind_thousands_of_a_strict_priority(broker: Broker) -> None:
    _waits(broker, 0)
    broker.pass_time(5 * SECOND)
    for _ in range(3):
        ids = [with_head_start(each, HALF_A_YEAR) for each in new_ids(500)]
        broker.enqueue(*ids, head_start=HALF_A_YEAR)
    broker.pass_time(SECOND)
    assert broker.view().oldest_age == pytest.approx(6, abs=0.001)


def test_a_message_that_was_delayed_waits_since_it_was_due(broker: Broker) -> None:
    _waits(broker, 9 * 60 * SECOND, due=f"+{60 * SECOND}")
    broker.pass_time(62 * SECOND)
    broker.claim(0)
    view = broker.view()
    assert (view.waiting, view.oldest_age, view.overdue) == (1, 2, 0)


def test_due_messages_that_nobody_promotes_are_overdue(broker: Broker) -> None:
    broker.enqueue("retried")
    broker.settle("retry", broker.claim_one(), delay=2 * SECOND)
    broker.enqueue("delayed", due=f"+{5 * SECOND}")
    broker.enqueue("later", due=f"+{60 * SECOND}")
    assert (broker.view().overdue, broker.view().overdue_age, broker.view().oldest_age) == (0, None, None)
    broker.pass_time(8 * SECOND)
    view = broker.view()
    assert (view.waiting, view.overdue, view.overdue_age, view.oldest_age) == (0, 2, 6, 6)


def test_leases_that_nobody_takes_back_have_expired(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first, _ = broker.claim().deliveries
    broker.pass_time(10 * SECOND)
    broker.extend(first)
    broker.pass_time(LEASE - 8 * SECOND)
    view = broker.view()
    assert (view.processing, view.expired, view.expired_age, view.oldest_age) == (2, 1, 2, 2)


def test_every_message_is_found_where_it_is(broker: Broker) -> None:
    _one_of_each(broker)
    ids = ("waiting2", "delayed", "retried", "held", "dead", "unknown")
    assert [broker.state_of(each) for each in ids] == ["waiting", "delayed", "retry", "processing", "dead", None]


def test_a_message_is_found_with_its_place(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    found = broker.find("b")
    assert found
    assert (found.position, found.score, found.body, found.meta, found.worker) == (2, START + 1, b"body of b", PLAIN, None)


def test_a_delayed_message_is_found_with_its_due_time(broker: Broker) -> None:
    broker.enqueue("a", due=f"+{SECOND}")
    found = broker.find("a")
    assert found
    assert found.score == START + SECOND


def test_looking_changes_nothing(broker: Broker) -> None:
    _one_of_each(broker)
    before = everything(broker.raw)
    broker.pass_time(0)
    broker.view()
    broker.find("held")
    assert everything(broker.raw) == before


def test_the_commands_of_the_guide_read_the_queue(broker: Broker) -> None:
    _one_of_each(broker)
    names = ("chat_api:queue:main", "chat_api:queue:retry", "chat_api:queue:dlq")
    assert [broker.raw.zcard(name) for name in names] == [2, 1, 1]
    assert broker.raw.hgetall("chat_api:stats")[b"total_messages"] == b"6"


def test_messages_are_found_by_what_is_in_them_and_not_by_a_pattern(broker: Broker) -> None:
    broker.enqueue(*(f"m{number}" for number in range(700)))
    broker.enqueue("m7%d")
    found: list[str] = []
    cursor = ""
    while cursor != "0":
        cursor, ids = broker.do(commands.seek(broker.keys, "of m7%d", cursor or "0"))
        found += ids
    assert set(found) == {"m7%d"}
