"""What an operator, and whoever waits for a job, can do."""

from __future__ import annotations

import pytest

from redisq.broker import commands
from redisq.broker.commands import Enqueue, Outcome, Settlement
from redisq.message import PLAIN, Meta
from tests.faces import LEASE, SECOND, Broker

#: Where a message can wait: nobody runs it.
WAITING = ("waiting", "delayed", "retry")


def remove(broker: Broker, *ids: str, states: tuple[str, ...] = WAITING, counter: str = "cancelled") -> list[str]:
    return broker.do(commands.remove(broker.keys, ids, counter=counter, states=states))


def cancel(broker: Broker, *ids: str) -> list[str]:
    return broker.do(commands.cancel(broker.keys, ids))


def outcome(broker: Broker, id: str) -> Outcome:
    return broker.do(commands.outcome(broker.keys, id))


def dead_letter(broker: Broker, id: str) -> None:
    broker.enqueue(id)
    broker.settle("dead", broker.claim_one(), reason="exhausted", text="no")


def test_a_waiting_message_can_be_cancelled_wherever_it_waits(broker: Broker) -> None:
    broker.enqueue("retry", "waiting")
    broker.settle("retry", broker.claim_one(), delay=SECOND)
    broker.enqueue("delayed", due=f"+{SECOND}")
    assert remove(broker, "waiting", "delayed", "retry", "unknown") == ["waiting", "delayed", "retry"]
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == []
    assert broker.stats()["cancelled"] == 3


def test_a_message_in_a_workers_hands_is_not_taken_from_it(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    assert remove(broker, "a", states=(*WAITING, "dead")) == []
    assert broker.ack(delivery) == []


def test_a_cancelled_message_cannot_be_acknowledged_late(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert remove(broker, "a") == ["a"]
    assert broker.ack(delivery) == ["a"]


def test_the_worker_hears_of_a_cancelled_message_whenever_it_extends(broker: Broker) -> None:
    broker.enqueue("a", "b")
    a, b = broker.claim().deliveries
    assert cancel(broker, "a", "unknown") == ["a"]
    for _ in range(2):
        broker.pass_time(SECOND)
        assert broker.extend(a, b) == {"a": "cancel"}
    broker.pass_time_busily(LEASE - SECOND)
    assert broker.extend(a, b) == {"a": "cancel"}, "it was not extended while it ran"
    assert broker.settle("cancel", a) == []
    assert broker.stats()["cancelled"] == 1


def test_a_message_that_was_cancelled_while_it_ran_does_not_run_again(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.claim()
    assert cancel(broker, "a") == ["a"]
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["b"]
    assert broker.find("a") is None
    assert outcome(broker, "a").state == "gone"
    assert broker.stats()["cancelled"] == 1


def test_what_nobody_runs_cannot_be_stopped(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    a, b, c = broker.claim().deliveries
    broker.settle("retry", a, delay=SECOND)
    broker.settle("dead", b)
    broker.ack(c)
    assert cancel(broker, "a", "b", "c") == []


def test_a_dead_letter_can_be_dropped(broker: Broker) -> None:
    dead_letter(broker, "a")
    assert remove(broker, "a", states=("dead",), counter="dropped") == ["a"]
    assert broker.find("a") is None
    assert broker.stats()["dropped"] == 1


def test_a_dead_letter_lives_again_with_all_attempts_anew(broker: Broker) -> None:
    broker.enqueue("dead", "b")
    broker.settle("retry", broker.claim_one())
    broker.settle("dead", broker.claim_one(), reason="exhausted")
    broker.took_token()
    assert broker.do(commands.replay(broker.keys, ["dead", "b", "unknown"])) == (["dead"], {})
    assert broker.took_token()
    first, _ = broker.claim().deliveries
    assert (first.id, first.meta) == ("dead", PLAIN)
    assert broker.stats()["replayed"] == 1


def test_a_page_of_dead_letters_is_read_in_the_order_of_their_deaths(broker: Broker) -> None:
    for each in ("c", "a", "b"):
        dead_letter(broker, each)
        broker.pass_time(1)
    page = broker.do(commands.browse(broker.keys, "dead", offset=1, limit=2))
    assert [row.id for row in page] == ["a", "b"]
    assert (page[0].body, page[0].meta) == (b"body of a", Meta(reason="exhausted", text="no"))
    assert broker.do(commands.browse(broker.keys, "dead", offset=3, limit=2)) == []


@pytest.mark.parametrize("state", ["waiting", "delayed", "retry", "processing", "dead"])
def test_the_messages_of_every_state_can_be_read(broker: Broker, state: str) -> None:
    broker.enqueue("retry", "dead", "processing")
    retried, dead, _ = broker.claim().deliveries
    broker.settle("retry", retried, delay=SECOND)
    broker.settle("dead", dead)
    broker.enqueue("delayed", due=f"+{SECOND}")
    broker.enqueue("waiting")
    assert [row.id for row in broker.do(commands.browse(broker.keys, state, offset=0, limit=10))] == [state]


def test_a_result_is_kept_for_its_time(broker: Broker) -> None:
    broker.enqueue("a")
    assert outcome(broker, "a") == Outcome("open")
    delivery = broker.claim_one()
    assert outcome(broker, "a") == Outcome("open")
    body = bytes(range(256))
    assert broker.settle_many([Settlement("result", "a", delivery.fence, 60 * SECOND, "none", body)]) == []
    assert outcome(broker, "a") == Outcome("done", body)
    assert 0 < broker.raw.pttl(broker.keys.result("a")) <= 60_000
    assert broker.stats()["processed_requests"] == 1


def test_a_result_of_a_lease_that_was_lost_is_not_kept(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.settle("release", delivery)
    assert broker.settle("result", delivery, delay=SECOND, text="R") == ["a"]
    assert outcome(broker, "a") == Outcome("open")


def test_a_dead_jobs_outcome_is_its_error(broker: Broker) -> None:
    dead_letter(broker, "a")
    assert outcome(broker, "a") == Outcome("dead", meta=Meta(reason="exhausted", text="no"))


def test_a_job_without_a_trace_is_gone(broker: Broker) -> None:
    broker.enqueue("a")
    broker.ack(broker.claim_one())
    assert outcome(broker, "a") == Outcome("gone")


def test_a_message_that_nobody_leased_in_time_expires(broker: Broker) -> None:
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"A", expires=f"+{SECOND}"), Enqueue("b", b"B")]))
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["b"]
    assert broker.find("a") is None
    assert broker.stats()["expired"] == 1


def test_a_message_that_is_leased_in_time_does_not_expire(broker: Broker) -> None:
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"A", expires=f"+{SECOND}")]))
    broker.pass_time(SECOND - 1)
    delivery = broker.claim_one()
    broker.pass_time(SECOND)
    assert broker.ack(delivery) == []


def test_a_claim_that_finds_only_expired_messages_looks_no_further_but_says_that_there_is_more(broker: Broker) -> None:
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"A", expires=f"+{SECOND}")]))
    broker.enqueue("b")
    broker.pass_time(SECOND)
    claimed = broker.claim(limit=1)
    assert (claimed.deliveries, claimed.next_due) == ([], 0)
    assert broker.took_token()
    assert broker.claimed_ids() == ["b"]
