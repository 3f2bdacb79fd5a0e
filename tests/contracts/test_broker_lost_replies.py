"""A call whose reply was lost is repeated, and acts once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redisq.broker import commands
from redisq.broker.commands import Command, Enqueue, Settlement
from redisq.errors import BrokerError
from redisq.message import Delivery
from tests.faces import LEASE, SECOND, Broker
from tests.keyspace import dump


def test_an_enqueue_whose_reply_was_lost_gives_the_same_answer(broker: Broker) -> None:
    broker.enqueue("a")
    broker.lose_reply()
    assert broker.enqueue("a", "b") == ["a"]
    assert broker.claimed_ids() == ["a", "b"]
    assert broker.stats()["total_messages"] == 2


def _run_everything(broker: Broker) -> None:
    """Somebody else takes all there is, and is done with it."""
    claimed = broker.other.execute(commands.claim(broker.keys, worker="other", limit=100, lease=LEASE, max_crashes=3))
    acks = [Settlement("ack", each.id, each.fence) for each in claimed.deliveries]
    assert broker.other.execute(commands.settle(broker.keys, acks)) == []


def test_a_message_that_was_run_and_settled_meanwhile_is_not_enqueued_again(broker: Broker) -> None:
    broker.lose_reply(meanwhile=lambda: _run_everything(broker))
    assert broker.enqueue("a") == []
    assert broker.find("a") is None
    assert broker.stats()["total_messages"] == 1


def test_a_claim_whose_reply_was_lost_leases_no_second_batch(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    broker.lose_reply()
    first = broker.claim(limit=2)
    assert [delivery.id for delivery in first.deliveries] == ["a", "b"]
    assert first.deliveries[0].body == b"body of a"
    assert broker.view().processing == 2
    assert broker.ack(*first.deliveries) == []


def test_a_claim_whose_reply_was_lost_tells_of_the_work_it_left_behind(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.lose_reply()
    assert broker.claim(limit=1).next_due == 0


def test_a_claim_whose_reply_was_lost_tells_attempts(broker: Broker) -> None:
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), text="no")
    broker.lose_reply()
    meta = broker.claim_one().meta
    assert (meta.attempt, meta.text) == (2, "no")


def test_an_empty_claim_whose_reply_was_lost_stays_empty(broker: Broker) -> None:
    broker.lose_reply(meanwhile=lambda: broker.other.execute(commands.enqueue(broker.keys, [Enqueue("a", b"")])))
    assert broker.claim().deliveries == []
    assert broker.claimed_ids() == ["a"]


def test_a_claim_whose_reply_was_lost_gives_only_what_is_still_its_own(broker: Broker) -> None:
    broker.enqueue("a", "b")
    claim = commands.claim(broker.keys, worker="w", limit=2, lease=LEASE, max_crashes=3)
    first, second = broker.call(claim, "caller", 1).deliveries
    broker.settle("release", first)
    assert broker.claimed_ids() == ["a"]
    assert broker.call(claim, "caller", 1).deliveries == [second]


def test_a_settlement_whose_reply_was_lost_acts_once_and_is_not_stale(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    acked, retried, released = broker.claim().deliveries
    broker.lose_reply()
    settlements = [
        Settlement("ack", acked.id, acked.fence),
        Settlement("retry", retried.id, retried.fence, SECOND),
        Settlement("release", released.id, released.fence),
    ]
    assert broker.settle_many(settlements, run_time=7) == []
    stats = broker.stats()
    counted = {name: stats.get(name) for name in ("processed_requests", "retry_count", "released", "run_time_us", "stale")}
    assert counted == {"processed_requests": 1, "retry_count": 1, "released": 1, "run_time_us": 7, "stale": None}


def test_a_settlement_whose_reply_was_lost_names_the_stale_ones_again(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.lose_reply()
    assert broker.ack(delivery, Delivery("b", 1, b"")) == ["b"]
    assert broker.stats()["stale"] == 1


def test_a_release_whose_reply_was_lost_does_not_take_the_message_from_its_next_holder(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    claim = commands.claim(broker.keys, worker="other", limit=1, lease=LEASE, max_crashes=3)
    broker.lose_reply(meanwhile=lambda: broker.other.execute(claim))
    assert broker.settle("release", delivery) == []
    found = broker.find("a")
    assert found
    assert (found.state, found.worker) == ("processing", "other")


def _claimed_and_cancelled(broker: Broker) -> Command[object]:
    if broker.view().waiting:
        broker.claim()
    return commands.cancel(broker.keys, ["a"])


COMMANDS: dict[str, Callable[[Broker], Command[object]]] = {
    "enqueue": lambda broker: commands.enqueue(broker.keys, [Enqueue("b", b"")]),
    "claim": lambda broker: commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3),
    "settle": lambda broker: commands.settle(broker.keys, [Settlement("ack", "a", 1)]),
    "remove": lambda broker: commands.remove(broker.keys, ["a"], counter="cancelled", states=["waiting"]),
    "cancel": lambda broker: _claimed_and_cancelled(broker),
    "replay": lambda broker: commands.replay(broker.keys, ["a"]),
    "set_limit": lambda broker: commands.set_limit(broker.keys, "bot", "1 1000000 1"),
}


@pytest.mark.parametrize("make", COMMANDS.values(), ids=COMMANDS)
def test_a_repeated_call_changes_nothing(broker: Broker, make: Callable[[Broker], Command[object]]) -> None:
    broker.enqueue("a")
    answer = broker.call(make(broker), "caller", 7)
    before = dump(broker.raw, broker.keys)
    broker.pass_time(SECOND)
    again = broker.call(make(broker), "caller", 7)
    if make is not COMMANDS["claim"]:  # its time to the next event has gone on
        assert again == answer
    assert dump(broker.raw, broker.keys) == before


@pytest.mark.parametrize("make", COMMANDS.values(), ids=COMMANDS)
def test_a_call_older_than_the_last_is_refused(broker: Broker, make: Callable[[Broker], Command[object]]) -> None:
    broker.enqueue("a")
    broker.call(make(broker), "caller", 7)
    before = dump(broker.raw, broker.keys)
    with pytest.raises(Exception, match="REDISQ_SUPERSEDED"):
        broker.call(make(broker), "caller", 6)
    assert dump(broker.raw, broker.keys) == before


def test_what_a_caller_was_answered_is_forgotten_by_itself(broker: Broker) -> None:
    broker.enqueue("a")
    (ledger,) = broker.raw.keys("chat_api:call:*")
    assert 0 < broker.raw.ttl(ledger) <= 600


def test_a_lost_reply_of_a_read_is_read_again(broker: Broker) -> None:
    broker.enqueue("a")
    broker.lose_reply()
    assert broker.view().waiting == 1


def test_a_lost_refusal_is_refused_again(broker: Broker) -> None:
    broker.lose_reply()
    with pytest.raises(BrokerError):
        broker.enqueue()
