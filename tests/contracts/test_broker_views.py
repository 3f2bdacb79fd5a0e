"""What an operator can read."""

from __future__ import annotations

from redisq.broker import commands
from redisq.broker.commands import QueueView
from redisq.message import PLAIN
from tests.clock import START
from tests.faces import SECOND, Broker
from tests.keyspace import everything


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
