"""A queue is deleted with all that is in it; a large one in bounded calls, whoever else uses it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redisq.broker import commands, sweep
from redisq.broker.commands import Dedupe, Enqueue
from redisq.broker.sweep import delete_queue
from tests.faces import SECOND, Broker

MOST = 4


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_DELETED_AT_ONCE", MOST)


def _send(broker: Broker, *numbers: int, due: str = "0") -> None:
    messages = [
        Enqueue(
            f"m{number}", b"body", due=due, descriptor=f"0 C @{number % 3} Rbot,1 Sllm,1",
            dedupe=Dedupe(f"k{number}"), definitions={"bot": "1000 1000000 1000", "llm": "9"},
        )
        for number in numbers
    ]  # fmt: skip
    broker.do(commands.enqueue(broker.keys, messages))


def _fill(broker: Broker) -> None:
    """Messages in each state, with lanes, limits and dedupe keys: 30 in all, of which 20 wait."""
    _send(broker, *range(24))
    _send(broker, *range(24, 30), due="+60000000")
    (first,) = broker.claim(1).deliveries
    broker.settle("dead", first)
    (second,) = broker.claim(1).deliveries
    broker.settle("retry", second, delay=60 * SECOND)
    broker.claim(2)


def _delete(broker: Broker, meanwhile: Callable[[], object] = lambda: None, *, if_empty: bool = False) -> tuple[int, int]:
    """Delete the queue; give what that comes to, and in how many calls."""
    steps, answer, calls = delete_queue(broker.keys, if_empty=if_empty), None, 0
    while True:
        try:
            step = steps.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            return int(stop.value), calls
        calls += 1
        answer = broker.do(step)  # type: ignore[arg-type]
        meanwhile()


def _left(broker: Broker) -> set[str]:
    names = {key.decode() for key in broker.raw.keys("*")}
    return {name for name in names if ":call:" not in name and not name.endswith((":testclock", ":limits"))}


def test_a_large_queue_goes_in_many_calls(broker: Broker) -> None:
    _fill(broker)
    view = broker.view()
    waited, calls = _delete(broker)
    assert waited == view.waiting + view.retry
    assert calls == -(-30 // MOST)
    assert _left(broker) == set()


def test_each_call_leaves_a_queue_that_works(broker: Broker) -> None:
    _fill(broker)
    ran: list[str] = []

    def work() -> None:
        claimed = broker.claim(1).deliveries
        assert all(each.body == b"body" for each in claimed)
        ran.extend(each.id for each in claimed)
        assert broker.ack(*claimed) == []

    _delete(broker, work)
    assert ran
    assert broker.claimed_ids() == []
    broker.enqueue("plain")
    assert broker.claimed_ids() == ["plain"]


def test_a_busy_producer_does_not_keep_a_delete_going_for_ever(broker: Broker) -> None:
    _fill(broker)
    numbers = iter(range(100, 10_000))
    _, calls = _delete(broker, lambda: _send(broker, *(next(numbers) for _ in range(2 * MOST))))
    assert calls <= 30 // MOST + 3
    # What was sent behind the last call is there whole.
    found = len(broker.claimed_ids()) + len(broker.claimed_ids())
    assert found == 3
    assert broker.view().waiting == 2 * MOST - found


def test_a_message_that_is_sent_meanwhile_keeps_a_queue_that_is_deleted_if_empty(broker: Broker) -> None:
    _send(broker, *range(10))
    for _ in range(20):
        for delivery in broker.claim().deliveries:
            broker.settle("dead", delivery)
    assert broker.view().dead == 10
    waited, _ = _delete(broker, lambda: broker.enqueue("late"), if_empty=True)
    assert waited == -1
    assert broker.claimed_ids() == ["late"]


def test_an_old_lease_means_nothing_once_its_queue_is_deleted(broker: Broker) -> None:
    _send(broker, *range(20))
    delivery = broker.claim_one()
    _delete(broker)
    assert broker.extend(delivery) == {delivery.id: "lost"}
    assert broker.ack(delivery) == [delivery.id]


def test_a_plain_queue_goes_in_one_call(broker: Broker) -> None:
    broker.enqueue(*(f"m{number}" for number in range(10 * MOST)))
    assert _delete(broker) == (10 * MOST, 1)
    assert _left(broker) == set()
