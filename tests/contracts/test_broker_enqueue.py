"""What the broker promises whoever enqueues."""

from __future__ import annotations

import pytest

from redisq.broker import commands
from redisq.broker.commands import Enqueue
from redisq.errors import ProtocolError
from tests.faces import SECOND, Broker
from tests.keyspace import everything


def test_an_accepted_message_waits_with_its_body(broker: Broker) -> None:
    assert broker.enqueue("a") == []
    found = broker.find("a")
    assert found
    assert (found.state, found.body, found.position) == ("waiting", b"body of a", 1)


def test_a_body_comes_out_byte_for_byte(broker: Broker) -> None:
    body = bytes(range(256)) * 4
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", body)]))
    assert broker.claim_one().body == body


def test_an_empty_body_is_a_body(broker: Broker) -> None:
    broker.do(commands.enqueue(broker.keys, [Enqueue("a", b"")]))
    assert broker.claim_one().body == b""


def test_a_message_enqueued_twice_under_one_id_is_stored_once(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.enqueue("a", "b") == ["a"]
    assert broker.claimed_ids() == ["a", "b"]
    assert broker.stats()["total_messages"] == 2


def test_a_message_twice_in_one_call_is_stored_once(broker: Broker) -> None:
    assert broker.enqueue("a", "b", "a") == ["a"]
    assert broker.claimed_ids() == ["a", "b"]


@pytest.mark.parametrize("op", ["retry", "dead"])
def test_an_id_is_taken_as_long_as_its_message_is_kept(broker: Broker, op: str) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    assert broker.enqueue("a") == ["a"]
    broker.settle(op, delivery, delay=SECOND)
    assert broker.enqueue("a") == ["a"]


def test_an_id_is_free_again_when_its_message_is_done(broker: Broker) -> None:
    broker.enqueue("a")
    broker.ack(broker.claim_one())
    assert broker.enqueue("a") == []
    assert broker.claimed_ids() == ["a"]


def test_every_accepted_message_is_counted(broker: Broker) -> None:
    broker.enqueue("a", "b")
    broker.enqueue("c", due="+1000000")
    assert broker.stats()["total_messages"] == 3


def test_a_thousand_messages_go_in_one_call(broker: Broker) -> None:
    ids = [f"m{place}" for place in range(1000)]
    assert broker.enqueue(*ids) == []
    assert broker.claimed_ids(1000) == ids


def test_more_than_a_thousand_messages_are_refused_before_any_change(broker: Broker) -> None:
    before = everything(broker.raw)
    with pytest.raises(ProtocolError, match="1 to 1000"):
        broker.enqueue(*(f"m{place}" for place in range(1001)))
    assert everything(broker.raw) == before


def test_no_message_at_all_is_refused(broker: Broker) -> None:
    with pytest.raises(ProtocolError):
        broker.enqueue()


def test_an_emptied_queue_leaves_no_trace_of_its_messages(broker: Broker) -> None:
    broker.enqueue("a", "b", head_start=SECOND)
    broker.enqueue("c", due="+1", head_start=SECOND)
    broker.pass_time(1)
    broker.ack(*broker.claim().deliveries)
    left = {name.decode().removeprefix("chat_api:").split(":")[0] for name in broker.raw.keys("*")}
    assert left <= {"clock", "config", "stats", "wake", "call", "testclock"}
