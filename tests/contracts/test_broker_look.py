"""`look`: what several queues have to do, in one script that changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redisq.broker import commands
from redisq.broker.commands import Look
from tests.faces import LEASE, SECOND, Broker
from tests.keyspace import dump


def _new(broker: Broker) -> None:
    pass


def _empty(broker: Broker) -> None:
    broker.claim()


def _waiting(broker: Broker) -> None:
    broker.enqueue("a")


def _paused(broker: Broker) -> None:
    broker.enqueue("a")
    broker.configure("paused", "1")


def _delayed(broker: Broker) -> None:
    broker.enqueue("a", due=f"+{10 * SECOND}")


def _paused_and_delayed(broker: Broker) -> None:
    _delayed(broker)
    broker.configure("paused", "1")


def _due(broker: Broker) -> None:
    _delayed(broker)
    broker.pass_time(11 * SECOND)


def _retry(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), delay=7 * SECOND)


def _dead(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("dead", broker.claim_one())


STATES = {
    "empty": (_empty, None),
    "waiting": (_waiting, 0),
    "paused": (_paused, None),
    "delayed": (_delayed, 10),
    "paused and delayed": (_paused_and_delayed, 10),
    "due": (_due, 0),
    "retry": (_retry, 7),
    "dead letter": (_dead, None),
}


def _look(*brokers: Broker, step: int = 0) -> list[Look]:
    return brokers[0].do(commands.look([broker.keys for broker in brokers], step=step))


@pytest.mark.parametrize(("before", "due"), STATES.values(), ids=STATES)
def test_look_says_when_a_claim_has_something_to_do(broker: Broker, before: Callable[[Broker], None], due: float | None) -> None:
    before(broker)
    (found,) = _look(broker)
    assert found.next_due == pytest.approx(due, abs=0.01)
    if due:
        # A claim says the same.
        assert broker.claim(limit=0).next_due == pytest.approx(due, abs=0.01)


def test_look_changes_nothing(broker: Broker) -> None:
    for before in (_waiting, _retry):
        before(broker)
    (found,) = _look(broker, step=SECOND)
    stored = dump(broker.raw, broker.keys)
    assert _look(broker, step=SECOND) == [found]
    assert dump(broker.raw, broker.keys) == stored


def test_queue_that_no_claim_made_yet_is_due_at_once(broker: Broker) -> None:
    assert _look(broker) == [Look(0)]


def test_look_answers_for_each_queue_in_order(broker: Broker) -> None:
    others = [broker.at(f"{broker.keys.queue}-{name}", broker.keys.namespace) for name in ("one", "two", "three")]
    broker.claim()
    for other, before in zip(others, (_empty, _waiting, _delayed), strict=True):
        other.set_time(broker.now)
        before(other)
    first, one, two, three = _look(broker, *others)
    assert (first, one, two) == (Look(None), Look(None), Look(0))
    assert three.next_due == pytest.approx(10, abs=0.01)


def test_queue_that_cannot_be_read_is_due_at_once_and_hides_no_other(broker: Broker) -> None:
    other = broker.at(f"{broker.keys.queue}-other", broker.keys.namespace)
    broker.claim()
    other.set_time(broker.now)
    _waiting(other)
    broker.raw.delete(other.keys.named("main"))
    broker.raw.set(other.keys.named("main"), "a string")
    assert _look(broker, other) == [Look(None), Look(0)]
    broker.raw.delete(other.keys.named("main"), other.keys.named("messages"))


@pytest.mark.parametrize(
    ("field", "value"), [("grace_until", "x"), ("lease", "nan"), ("rules", "x"), ("layout", "2"), ("clock", "x")]
)
def test_queue_with_a_setting_that_is_no_number_is_due_at_once(broker: Broker, field: str, value: str) -> None:
    broker.enqueue("a")
    held = broker.claim_one()
    assert _look(broker)[0].next_due != 0
    name, key = broker.keys.named("config"), broker.keys.named("clock")
    before = broker.raw.get(key) if field == "clock" else broker.raw.hget(name, field)
    broker.raw.set(key, value) if field == "clock" else broker.raw.hset(name, field, value)
    assert _look(broker) == [Look(0)]
    # As it was, for those who check what a test leaves behind.
    if before is None:
        broker.raw.hdel(name, field)
    elif field == "clock":
        broker.raw.set(key, before)
    else:
        broker.raw.hset(name, field, before)
    broker.ack(held)


def test_dead_workers_lease_is_taken_back_at_its_end_by_those_who_only_look(broker: Broker) -> None:
    """Scripts that change nothing do not move the queue's clock; a clock that stands still puts off the end of leases."""
    broker.enqueue("a")
    broker.claim_one()
    passed, claims = 0, 0
    while broker.view().processing:
        (found,) = _look(broker)
        assert found.next_due is not None
        if found.next_due == 0:
            claims += 1
            broker.claim(limit=0)
        else:
            step = min(round(found.next_due * SECOND) + 1, SECOND)
            broker.pass_time(step)
            passed += step
        assert passed <= LEASE + 2 * SECOND
        assert claims <= 4
    # Some to move the clock, one to take back: not one a second.
    assert claims >= 2


def test_lease_whose_holder_renews_it_costs_nobody_else_a_claim(broker: Broker) -> None:
    broker.enqueue("a")
    held = broker.claim_one()
    for _ in range(9):
        for _ in range(10):
            broker.pass_time(LEASE // 30)
            assert _look(broker)[0].next_due != 0
        broker.extend(held)
    broker.ack(held)


def test_queue_that_expires_unused_is_due_before_that(broker: Broker) -> None:
    broker.do(commands.declare(broker.keys, ttl=60_000))
    (found,) = _look(broker)
    assert found.next_due == pytest.approx(30, abs=1)
    broker.raw.pexpire(broker.keys.named("config"), 20_000)
    assert _look(broker) == [Look(0)]


STEP = 1000 * SECOND


def test_look_tells_the_priority_of_the_first_message_and_how_many_have_it(broker: Broker) -> None:
    assert _look(broker, step=STEP) == [Look(0)]
    broker.enqueue("low", "lower", head_start=-3 * STEP)
    assert _look(broker, step=STEP) == [Look(0, 3, 2)]
    broker.enqueue("plain")
    broker.pass_time(10 * SECOND)
    broker.enqueue("also plain")
    assert _look(broker, step=STEP) == [Look(0, 0, 2)]
    broker.enqueue("high", head_start=2 * STEP)
    assert _look(broker, step=STEP) == [Look(0, -2, 1)]
    assert _look(broker) == [Look(0)]
    broker.configure("paused", "1")
    assert _look(broker, step=STEP)[0].band is None


def test_no_priority_is_told_before_a_claim_put_what_is_due_to_its_place(broker: Broker) -> None:
    broker.enqueue("plain")
    broker.enqueue("high", head_start=STEP, due=f"+{SECOND}")
    assert _look(broker, step=STEP) == [Look(0, 0, 1)]
    broker.pass_time(2 * SECOND)
    assert _look(broker, step=STEP) == [Look(0)]
    broker.claim(limit=0)
    assert _look(broker, step=STEP) == [Look(0, -1, 1)]
