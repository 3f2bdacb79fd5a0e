"""A key of a queue that was deleted or evicted past redisq: what its holders restore, and what an error says."""

from __future__ import annotations

import pytest

from redisq.app.waiting import run
from redisq.broker import commands
from redisq.broker.commands import Dedupe, Enqueue
from redisq.broker.keys import GroupKeys
from redisq.broker.repair import repair
from redisq.errors import QueueConflict
from tests.faces import LEASE, SECOND, Broker


def _send(broker: Broker, ident: str, window: int = 0, mode: str = "ignore") -> commands.Enqueued:
    return broker.do(commands.enqueue(broker.keys, [Enqueue(ident, b"", dedupe=Dedupe("key", mode, window))]))


def test_a_living_holder_restores_its_deadline_and_settles(broker: Broker) -> None:
    broker.enqueue("a", "b")
    first, second = broker.claim().deliveries
    broker.raw.delete("chat_api:queue:processing")
    assert broker.extend(first, second) == {}
    assert (broker.state_of("a"), broker.state_of("b")) == ("processing", "processing")
    assert broker.ack(first) == []
    # The other holder dies: its message comes back.
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["b"]


def test_a_settled_message_is_not_brought_back_by_a_late_extend(broker: Broker) -> None:
    broker.enqueue("a", "b", "c")
    acked, retried, dead = broker.claim().deliveries
    broker.ack(acked)
    broker.settle("retry", retried, delay=SECOND)
    broker.settle("dead", dead)
    assert set(broker.extend(acked, retried, dead)) == {"a", "b", "c"}
    assert [broker.state_of(ident) for ident in "abc"] == [None, "retry", "dead"]


@pytest.mark.parametrize("mode", ["ignore", "replace", "extend"])
def test_a_dedupe_key_whose_message_is_gone_stands_for_nothing(broker: Broker, mode: str) -> None:
    _send(broker, "first")
    assert _send(broker, "second", mode=mode).owners == {"second": "first"}
    broker.raw.delete("chat_api:queue:main", "chat_api:messages")
    assert _send(broker, "third", mode=mode).owners == {}
    assert _send(broker, "fourth").owners == {"fourth": "third"}


def test_a_dedupe_key_keeps_its_window_when_its_message_is_gone(broker: Broker) -> None:
    _send(broker, "first", window=60 * SECOND)
    broker.raw.delete("chat_api:queue:main", "chat_api:messages")
    assert _send(broker, "second", window=60 * SECOND).owners == {"second": "first"}
    broker.pass_time(61 * SECOND)
    assert _send(broker, "third").owners == {}


def test_a_lost_config_is_an_error_with_cause_and_remedy(broker: Broker) -> None:
    broker.enqueue("a")
    broker.raw.delete("chat_api:config")
    remedy = r"chat_api:config was deleted or evicted.*maxmemory-policy noeviction.*redisq repair <queue>"
    with pytest.raises(QueueConflict, match=remedy):
        broker.claim()
    run(repair(broker.keys, LEASE), broker.other)
    assert broker.claimed_ids() == ["a"]


def test_a_living_holder_in_a_group_restores_its_deadline_with_its_slot(broker: Broker) -> None:
    message = Enqueue("a", b"", descriptor="0 F llm Sllm,1", definitions={"llm": "2"}, group=GroupKeys("models").prefix)
    broker.do(commands.enqueue(broker.keys, [message]))
    delivery = broker.claim_one()
    broker.raw.delete("chat_api:queue:processing")
    assert broker.extend(delivery) == {}
    assert broker.state_of("a") == "processing"
    assert broker.ack(delivery) == []


@pytest.mark.parametrize("mode", ["ignore", "replace", "extend"])
def test_a_dedupe_key_whose_message_is_in_no_state_stands_for_nothing(broker: Broker, mode: str) -> None:
    _send(broker, "first")
    broker.raw.delete("chat_api:queue:main")
    assert _send(broker, "second", mode=mode).owners == {}
    assert _send(broker, "third").owners == {"third": "second"}
