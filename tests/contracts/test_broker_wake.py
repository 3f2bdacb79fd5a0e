"""When the hint is left that there is something to do, and when not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redisq.broker import commands
from tests.faces import LEASE, SECOND, Broker


def _nothing(broker: Broker) -> None:
    pass


def _one_waiting(broker: Broker) -> None:
    broker.enqueue("old")


def _one_delayed(broker: Broker) -> None:
    broker.enqueue("old", due=f"+{10 * SECOND}")


def _one_retry(broker: Broker) -> None:
    broker.enqueue("old")
    broker.settle("retry", broker.claim_one(), delay=10 * SECOND)


def _ten_due(broker: Broker) -> None:
    broker.enqueue(*(f"old{place}" for place in range(10)), due=f"+{SECOND}")
    broker.pass_time(2 * SECOND)


def _paused(broker: Broker) -> None:
    broker.enqueue("old")
    broker.configure("paused", "1")


def _leased(broker: Broker) -> None:
    broker.enqueue("old")
    broker.claim()


def _expired(broker: Broker) -> None:
    _leased(broker)
    broker.pass_time_busily(LEASE)


def _enqueue(*ids: str, due: str = "0") -> Callable[[Broker], object]:
    return lambda broker: broker.enqueue(*ids, due=due)


def _claim(limit: int) -> Callable[[Broker], object]:
    return lambda broker: broker.claim(limit)


SETS = {
    "enqueue of ready work": (_nothing, _enqueue("a")),
    "enqueue of ready work behind other": (_one_waiting, _enqueue("a")),
    "enqueue of the first due time": (_nothing, _enqueue("a", due="+1000000")),
    "enqueue of an earlier due time": (_one_delayed, _enqueue("a", due="+1000000")),
    "enqueue of a past due time": (_one_delayed, _enqueue("a", due="1")),
    "claim that leaves work behind": (_ten_due, _claim(9)),
    "claim that fills its caller while its own lease will end": (_one_waiting, _claim(1)),
    "claim of nothing while something is due later": (_one_delayed, _claim(0)),
    "claim that takes back more than it may lease": (_expired, _claim(0)),
}

LEAVES = {
    "enqueue of what is there already": (_one_waiting, _enqueue("old")),
    "enqueue of a later due time": (_one_delayed, _enqueue("a", due="+11000000")),
    "enqueue of the same due time": (_one_delayed, _enqueue("a", due="+10000000")),
    "claim that takes all and has room": (_ten_due, _claim(11)),
    "claim of an empty queue": (_nothing, _claim(10)),
    "claim of nothing from an empty queue": (_nothing, _claim(0)),
    "claim that waits for a due time": (_one_delayed, _claim(10)),
    "claim that waits for a retry": (_one_retry, _claim(10)),
    "claim of a paused queue": (_paused, _claim(10)),
    "claim that only takes back": (_expired, _claim(10)),
    "inspect": (_one_waiting, lambda broker: broker.view()),
    "find": (_one_waiting, lambda broker: broker.find("old")),
}


@pytest.mark.parametrize(("before", "call"), SETS.values(), ids=SETS)
def test_the_hint_is_left_by(broker: Broker, before: Callable[[Broker], None], call: Callable[[Broker], object]) -> None:
    before(broker)
    broker.took_token()
    call(broker)
    assert broker.took_token()


@pytest.mark.parametrize(("before", "call"), LEAVES.values(), ids=LEAVES)
def test_the_hint_is_not_left_by(broker: Broker, before: Callable[[Broker], None], call: Callable[[Broker], object]) -> None:
    before(broker)
    broker.took_token()
    call(broker)
    assert not broker.took_token()


@pytest.mark.parametrize(
    ("op", "delay", "woken"),
    [("ack", 0, False), ("release", 0, True), ("dead", 0, False), ("retry", 5, True), ("park", 5, True), ("retry", 15, False)],
)
def test_a_settlement_leaves_the_hint_for_work_and_earlier_times(broker: Broker, op: str, delay: int, woken: bool) -> None:
    _one_retry(broker)
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.took_token()
    broker.settle(op, delivery, delay=delay * SECOND)
    assert broker.took_token() is woken


def test_a_stale_release_leaves_no_hint(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.ack(delivery)
    broker.took_token()
    broker.settle("release", delivery)
    assert not broker.took_token()


def test_an_extension_leaves_no_hint(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.took_token()
    broker.extend(delivery)
    assert not broker.took_token()


def test_the_hint_can_be_left_by_hand(broker: Broker) -> None:
    broker.do(commands.wake(broker.keys))
    assert broker.took_token()


def test_there_is_one_hint_at_most(broker: Broker) -> None:
    broker.enqueue("a")
    broker.enqueue("b")
    broker.do(commands.wake(broker.keys))
    assert broker.raw.zcard(broker.keys.wake) == 1


def test_waiting_ends_with_the_hint_and_takes_it(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.do(commands.wait([broker.keys], 1)) == "chat_api:wake"
    assert not broker.took_token()


def test_waiting_for_several_queues_tells_which_has_work(broker: Broker) -> None:
    other = broker.at("other")
    other.enqueue("a")
    assert broker.do(commands.wait([broker.keys, other.keys], 1)) == "other:wake"
