"""Lanes, limits, slots, pauses and dedupe keys: what is promised of each, over every implementation of the broker."""

from __future__ import annotations

import random
from typing import Any

import pytest

from redisq.broker import commands
from redisq.broker.commands import Dedupe, Enqueue
from redisq.message import Delivery
from tests.contracts.gates_check import check, read
from tests.faces import LEASE, SECOND, Broker

RULES = {"bot": "10 1000000 1", "chat": "1 1000000 1", "llm": "2", "tokens": "100 1000000 50"}
MS = 1000


def send(broker: Broker, *ids: str, needs: str, **options: Any) -> commands.Enqueued:
    messages = [Enqueue(each, b"", descriptor=f"0 {needs}", definitions=RULES, **options) for each in ids]
    return broker.do(commands.enqueue(broker.keys, messages))


def pause(broker: Broker, gate: str, microseconds: int | None) -> None:
    broker.do(commands.pause_gate(broker.keys, gate, microseconds))


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [each.id for each in deliveries]


@pytest.fixture(autouse=True)
def every_index_is_right(broker: Broker) -> Any:
    yield
    check(read(broker.raw, broker.keys), broker.now)


# Lanes.


def test_a_lane_gives_out_one_message_at_a_time_in_the_order_of_sending(broker: Broker) -> None:
    send(broker, "a1", "a2", "a3", needs="C @a")
    for expected in ("a1", "a2", "a3"):
        claimed = broker.claim().deliveries
        assert ids_of(claimed) == [expected]
        assert broker.claim().deliveries == []
        broker.ack(*claimed)


def test_lanes_do_not_wait_for_each_other(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="C @a")
    send(broker, "b1", needs="C @b")
    broker.enqueue("plain")
    assert broker.claimed_ids() == ["a1", "b1", "plain"]


def test_a_retry_keeps_its_lane_and_runs_before_its_followers(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="C @a")
    broker.settle("retry", broker.claim_one(), delay=SECOND)
    assert broker.claim().deliveries == []
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["a1"]


def test_a_worker_that_dies_holds_its_lane_until_its_lease_is_over(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="C @a")
    broker.claim()
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["a1"]


@pytest.mark.parametrize(("kind", "expected"), [("C", ["a2"]), ("H", [])])
def test_a_dead_message_lets_its_lane_go_on_or_holds_it(broker: Broker, kind: str, expected: list[str]) -> None:
    send(broker, "a1", "a2", needs=f"{kind} @a")
    broker.settle("dead", broker.claim_one())
    assert broker.claimed_ids() == expected


def test_a_held_lane_goes_on_when_its_dead_letter_is_dropped(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="H @a")
    broker.settle("dead", broker.claim_one())
    broker.do(commands.remove(broker.keys, ["a1"], counter="dropped", states=["dead"]))
    assert broker.claimed_ids() == ["a2"]


def test_a_held_lane_goes_on_with_its_dead_letter_when_that_is_replayed(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="H @a")
    broker.settle("dead", broker.claim_one())
    broker.do(commands.replay(broker.keys, ["a1"]))
    first = broker.claim().deliveries
    assert ids_of(first) == ["a1"]
    broker.ack(*first)
    assert broker.claimed_ids() == ["a2"]


def test_lanes_take_turns(broker: Broker) -> None:
    send(broker, *(f"loud{number}" for number in range(50)), needs="C @loud")
    broker.pass_time(SECOND)
    send(broker, "fresh", needs="C @fresh")
    broker.ack(broker.claim_one())
    assert broker.claim_one().id == "fresh"


def position(broker: Broker, ident: str) -> int:
    found = broker.find(ident)
    assert found
    return found.position


def test_the_position_in_a_lane_counts_what_starts_before(broker: Broker) -> None:
    send(broker, "a1", "a2", "a3", "a4", needs="C @a")
    send(broker, "b1", "b2", needs="C @b Rbot,1")
    # The lanes take turns: b1 starts second, though four messages came before it.
    assert [position(broker, each) for each in ("a1", "a2", "a3", "a4", "b1", "b2")] == [1, 2, 3, 4, 2, 3]
    first = broker.claim_one()
    assert first.id == "a1"
    # The next of the lane comes behind all that wait when the running one ends.
    assert [position(broker, each) for each in ("a2", "a3", "b1", "b2")] == [2, 3, 1, 2]
    broker.settle("retry", first, delay=SECOND)
    assert position(broker, "a2") == 3, "the next attempt of a1 comes before it"
    broker.pass_time(SECOND)
    broker.claim(limit=0)
    assert [position(broker, each) for each in ("a1", "a2", "b1")] == [1, 2, 2]


def test_the_position_of_a_lane_that_waits_at_a_limit_is_its_place_in_the_order(broker: Broker) -> None:
    pause(broker, "bot", None)
    send(broker, "a1", "a2", needs="C @a Rbot,1")
    send(broker, "b1", needs="C @b Rbot,1")
    assert broker.claim().deliveries == []
    send(broker, "c1", needs="C @c")
    assert [position(broker, each) for each in ("a1", "a2", "b1", "c1")] == [1, 2, 2, 1]


def test_no_message_of_a_lane_starts_before_its_position(broker: Broker) -> None:
    for number in range(4):
        for lane in "abc"[: 1 + number % 3]:
            send(broker, f"{lane}{number}", needs=f"C @{lane}")
    waiting = [f"{lane}{number}" for number in range(4) for lane in "abc"[: 1 + number % 3]]
    while waiting:
        said = {each: position(broker, each) for each in waiting}
        order = []
        probe = broker.claim_one()
        assert said[probe.id] == 1
        broker.ack(probe)
        order.append(probe.id)
        assert all(place >= 1 for place in said.values())
        waiting.remove(probe.id)
        assert all(said[each] - position(broker, each) <= 1 for each in waiting), "one start brings nobody forward by two"


def test_a_full_lane_takes_no_more_and_says_which(broker: Broker) -> None:
    answer = send(broker, "a1", "a2", "a3", needs="C @a", lane_cap=2)
    assert answer.refused == ["a3"]
    broker.ack(broker.claim_one())
    assert send(broker, "a4", needs="C @a", lane_cap=2).refused == []
    assert send(broker, "b1", needs="C @b", lane_cap=2).refused == []


def test_a_late_acknowledgement_lets_the_lane_go_on(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="C @a")
    slow = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert broker.ack(slow) == []
    assert broker.claimed_ids() == ["a2"]


# Limits.


def test_a_rate_lets_through_its_burst_and_then_one_at_a_time(broker: Broker) -> None:
    send(broker, *"abc", needs="F bot Rbot,1")
    assert broker.claimed_ids() == ["a"]
    claimed = broker.claim()
    assert (claimed.deliveries, claimed.next_due) == ([], 0.1)
    broker.pass_time(100 * MS - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["b"]


def test_nothing_is_taken_from_one_limit_when_another_refuses(broker: Broker) -> None:
    send(broker, "a", "b", needs="F chat:1 Rbot,1 Rchat:1,1")
    assert broker.claimed_ids() == ["a"]
    broker.pass_time(100 * MS)
    assert broker.claimed_ids() == []
    send(broker, "c", needs="F bot Rbot,1")
    assert broker.claimed_ids() == ["c"], "b took nothing out of the bot's limit"


def test_what_costs_more_than_the_burst_passes_a_full_bucket_and_is_paid_back(broker: Broker) -> None:
    send(broker, "dear", needs="F tokens Rtokens,200")
    send(broker, "cheap", needs="F tokens Rtokens,1")
    assert broker.claimed_ids() == ["dear"]
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == []
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["cheap"]


def test_cheap_calls_do_not_keep_a_dear_one_waiting_for_ever(broker: Broker) -> None:
    send(broker, "first", needs="F a Rtokens,50")
    broker.claim()
    send(broker, "dear", needs="F b Rtokens,50")
    broker.claim()
    for number in range(3):
        send(broker, f"cheap{number}", needs=f"F c{number} Rtokens,1")
        broker.pass_time(100 * MS)
        assert broker.claimed_ids() == []
    broker.pass_time(200 * MS)
    assert broker.claimed_ids() == ["dear"]


def test_slots_are_those_of_living_leases(broker: Broker) -> None:
    send(broker, *"abcd", needs="F llm Sllm,1")
    first, second = broker.claim().deliveries
    assert broker.claimed_ids() == []
    broker.settle("retry", first, delay=SECOND)
    assert broker.claimed_ids() == ["c"]
    broker.ack(second)
    assert broker.claimed_ids() == ["d"]


def test_a_dead_worker_gives_its_slots_back_when_its_leases_are_over(broker: Broker) -> None:
    send(broker, *"abc", needs="F llm Sllm,1")
    assert broker.claimed_ids() == ["a", "b"]
    broker.pass_time_busily(LEASE)
    assert broker.claimed_ids() == ["a", "b"]


def test_a_shut_limit_delays_nobody_else(broker: Broker) -> None:
    send(broker, *(f"m{number}" for number in range(200)), needs="F bot Rbot,1")
    broker.enqueue("plain")
    assert broker.claimed_ids(limit=2) == ["m0", "plain"]


def test_a_name_without_a_rule_limits_nothing(broker: Broker) -> None:
    send(broker, "a", "b", needs="F model:x Rmodel:x,0 Rnew,1")
    assert broker.claimed_ids() == ["a", "b"]


def test_an_operators_rule_holds_at_once_also_for_what_waits(broker: Broker) -> None:
    send(broker, *"abc", needs="F bot Rbot,1")
    assert broker.claimed_ids() == ["a"]
    assert broker.claimed_ids() == []
    broker.do(commands.set_limit(broker.keys, "bot", "1000 1000000 1000"))
    assert broker.claimed_ids() == ["b", "c"]


def test_the_code_does_not_undo_an_operators_rule(broker: Broker) -> None:
    broker.do(commands.set_limit(broker.keys, "bot", "1000 1000000 1000"))
    send(broker, *"abc", needs="F bot Rbot,1")
    broker.do(commands.set_limit(broker.keys, "bot", "1 1000000 1", "code"))
    assert broker.claimed_ids() == ["a", "b", "c"]
    broker.do(commands.set_limit(broker.keys, "bot", ""))
    send(broker, *"de", needs="F bot Rbot,1")
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["d"]


# Refusals and pauses.


def test_a_refusal_pauses_the_gate_for_all_and_spends_no_attempt(broker: Broker) -> None:
    send(broker, "a1", "a2", needs="C @a Rmodel:x,0")
    send(broker, "b1", needs="C @b Rmodel:x,0")
    delivery = broker.claim_one()
    broker.settle_many([commands.limited("a1", delivery.fence, gate="model:x", pause=SECOND, jitter=5)])
    assert broker.claimed_ids() == []
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["b1"]
    broker.pass_time(5)
    (again,) = broker.claim().deliveries
    assert (again.id, again.meta.attempt) == ("a1", 1)
    assert broker.stats()["limited"] == 1


def test_a_refusal_by_a_gate_that_the_message_does_not_name_delays_it_all_the_same(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.settle_many([commands.limited("a", delivery.fence, gate="elsewhere", pause=SECOND, jitter=0)])
    assert broker.claimed_ids() == []
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["a"]


@pytest.mark.parametrize("gate", ["@a", "bot", "chat:1", "chat"])
def test_what_is_paused_lets_nothing_pass_until_it_is_resumed(broker: Broker, gate: str) -> None:
    pause(broker, gate, None)
    send(broker, "a", needs="C @a Rbot,1 Rchat:1,1")
    broker.enqueue("plain")
    assert broker.claimed_ids() == ["plain"]
    pause(broker, gate, 0)
    broker.do(commands.kick(broker.keys, ["chat:1"]))
    assert broker.claimed_ids() == ["a"]


def test_a_pause_ends_by_itself(broker: Broker) -> None:
    pause(broker, "@a", SECOND)
    send(broker, "a", needs="C @a")
    assert broker.claim().next_due == 1.0
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["a"]


def test_an_operator_who_died_before_he_told_who_waits_is_made_up_for(broker: Broker) -> None:
    pause(broker, "chat", None)
    send(broker, "a", needs="C @a Rchat:1,1")
    broker.claim()
    pause(broker, "chat", 0)  # and no kick
    for _ in range(45):
        broker.pass_time_busily(LEASE // 2)
        broker.claim(limit=0)
    assert broker.claimed_ids() == ["a"]


# Queues that had no gates.


def test_messages_of_before_the_first_gate_come_first(broker: Broker) -> None:
    old = [f"old{number:03}" for number in range(450)]
    broker.enqueue(*old)
    send(broker, "gated", needs="C @a")
    broker.enqueue("new")
    given: list[str] = []
    while claimed := broker.claim(limit=70).deliveries:
        given += ids_of(claimed)
        broker.ack(*claimed)
    assert given == [*old, "gated", "new"]


def test_a_queue_is_a_plain_one_again_when_its_last_gated_message_is_gone(broker: Broker) -> None:
    send(broker, "a", needs="C @a Rbot,1 Sllm,1")
    broker.ack(broker.claim_one())
    assert broker.raw.hget(broker.keys.named("config"), "gated") is None
    left = {key.decode().removeprefix(f"{broker.keys.prefix}:") for key in broker.raw.keys("*")}
    assert left & {"run", "needs", "lanes", "slots", "blocked", "gates"} == set()
    broker.enqueue("plain")
    assert broker.claimed_ids() == ["plain"]


# Once at the door.


def once(broker: Broker, ident: str, mode: Any = "ignore", window: int = 0, **options: Any) -> commands.Enqueued:
    message = Enqueue(ident, f"body of {ident}".encode(), dedupe=Dedupe("k", mode, window), **options)
    return broker.do(commands.enqueue(broker.keys, [message]))


def test_while_a_message_lives_it_stands_for_all_with_its_key(broker: Broker) -> None:
    assert once(broker, "a").owners == {}
    assert once(broker, "b").owners == {"b": "a"}
    delivery = broker.claim_one()
    assert once(broker, "c").owners == {"c": "a"}
    broker.ack(delivery)
    assert once(broker, "d").owners == {}


def test_the_one_that_waits_takes_the_body_of_the_last(broker: Broker) -> None:
    once(broker, "a")
    assert once(broker, "b", "replace").owners == {"b": "a"}
    delivery = broker.claim_one()
    assert (delivery.id, delivery.body) == ("a", b"body of b")


def test_a_new_body_runs_also_when_the_old_one_runs(broker: Broker) -> None:
    once(broker, "a")
    first = broker.claim_one()
    assert once(broker, "b", "replace").owners == {}
    broker.ack(first)
    assert broker.claimed_ids() == ["b"]


def test_a_late_acknowledgement_of_the_old_body_does_not_end_the_new_one(broker: Broker) -> None:
    once(broker, "a")
    slow = broker.claim_one()
    broker.pass_time_busily(LEASE)
    broker.claim(limit=0)
    assert once(broker, "b", "replace").owners == {"b": "a"}
    assert broker.ack(slow) == ["a"]
    assert broker.claim_one().body == b"body of b"


def test_a_debounced_message_waits_from_the_last_call_on(broker: Broker) -> None:
    once(broker, "a", "extend", due=f"+{SECOND}")
    broker.pass_time(SECOND // 2)
    once(broker, "b", "extend", due=f"+{SECOND}")
    broker.pass_time(SECOND // 2)
    assert broker.claimed_ids() == []
    broker.pass_time(SECOND // 2)
    assert broker.claim_one().body == b"body of b"


def test_a_window_outlasts_its_message(broker: Broker) -> None:
    once(broker, "a", window=60 * SECOND)
    broker.ack(broker.claim_one())
    assert once(broker, "b").owners == {"b": "a"}
    assert 0 < broker.raw.pttl(broker.keys.dedupe("k")) <= 60_000


def test_a_dead_message_stands_for_nobody(broker: Broker) -> None:
    once(broker, "a")
    broker.settle("dead", broker.claim_one())
    assert once(broker, "b").owners == {}


def test_a_dead_letter_whose_key_another_message_has_stays_dead_unless_both_are_wanted(broker: Broker) -> None:
    once(broker, "a")
    broker.settle("dead", broker.claim_one(), reason="exhausted")
    once(broker, "b")
    for _ in range(2):
        assert broker.do(commands.replay(broker.keys, ["a"])) == ([], {"a": "b"})
        assert broker.state_of("a") == "dead"
    assert broker.stats().get("replayed", 0) == 0
    assert broker.do(commands.replay(broker.keys, ["a"], beside=True)) == (["a"], {})
    assert once(broker, "c").owners == {"c": "b"}
    assert broker.claimed_ids() == ["a", "b"]


def test_of_two_dead_letters_with_one_key_the_first_is_replayed(broker: Broker) -> None:
    for ident in ("a", "b"):
        once(broker, ident)
        broker.settle("dead", broker.claim_one())
    assert broker.do(commands.replay(broker.keys, ["a", "b"])) == (["a"], {"b": "a"})
    assert once(broker, "c").owners == {"c": "a"}
    broker.ack(broker.claim_one())
    assert broker.do(commands.replay(broker.keys, ["b"])) == (["b"], {})


def test_a_dead_letter_within_its_own_window_is_replayed(broker: Broker) -> None:
    once(broker, "a", window=60 * SECOND)
    broker.settle("dead", broker.claim_one())
    assert broker.do(commands.replay(broker.keys, ["a"])) == (["a"], {})


# Messages that have to run apart.


def _crash_twice(broker: Broker, count: int) -> None:
    for _ in range(2):
        assert len(broker.claim().deliveries) == count
        broker.pass_time_busily(LEASE)


def _claim_apart(broker: Broker, apart: int) -> list[str]:
    command = commands.claim(broker.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, apart=apart)
    return ids_of(broker.do(command).deliveries)


def test_a_message_that_waits_to_run_apart_spends_no_rate(broker: Broker) -> None:
    send(broker, "suspect", needs="F bot Rbot,1")
    _crash_twice(broker, 1)
    send(broker, "well", needs="F bot Rbot,1")
    for _ in range(5):
        # Each time it comes back it is put aside again, before the gates: the rate is there for the other message.
        assert "suspect" not in _claim_apart(broker, 0)
        broker.pass_time(SECOND)
    assert broker.state_of("well") == "processing"
    assert _claim_apart(broker, 1) == ["suspect"]


def test_a_message_that_waits_to_run_apart_keeps_its_lane(broker: Broker) -> None:
    send(broker, "suspect", needs="C @a")
    _crash_twice(broker, 1)
    send(broker, "next", needs="C @a")
    for _ in range(3):
        assert _claim_apart(broker, 0) == []
        broker.pass_time(SECOND)
    assert _claim_apart(broker, 1) == ["suspect"]


def test_no_more_messages_with_limits_run_apart_than_there_is_room_for(broker: Broker) -> None:
    send(broker, "a", "b", needs="F llm Sllm,1")
    _crash_twice(broker, 2)
    assert len(_claim_apart(broker, 1)) == 1
    broker.pass_time(SECOND)
    assert len(_claim_apart(broker, 1)) == 1


# Messages without a body.


@pytest.mark.parametrize("needs", ["F bot Rbot,1", "C @a", "C @a Rbot,1 Sllm,1"])
def test_a_message_without_a_body_spends_no_rate_and_holds_no_lane(broker: Broker, needs: str) -> None:
    send(broker, "gone", "well", needs=needs)
    broker.raw.hdel("chat_api:messages", "gone")
    # A lane takes its turn in the next claim.
    assert broker.claimed_ids() + broker.claimed_ids() == ["well"]
    assert (broker.state_of("gone"), broker.state_of("well")) == ("dead", "processing")


def test_a_held_lane_is_held_by_a_message_without_a_body_until_it_is_dropped(broker: Broker) -> None:
    send(broker, "gone", "well", needs="H @a")
    broker.raw.hdel("chat_api:messages", "gone")
    assert broker.claimed_ids() + broker.claimed_ids() == []
    broker.do(commands.remove(broker.keys, ["gone"], counter="dropped", states=["dead"]))
    assert broker.claimed_ids() == ["well"]


# A rate gets back what was taken for a message that did not begin.

#: As far as a fence may be ahead of its claim, us.
AHEAD = 1 * MS


def give_back(broker: Broker, *deliveries: Delivery) -> None:
    assert broker.settle_many(commands.given_back(each) for each in deliveries) == []


@pytest.mark.parametrize("how", ["given back", "put aside"])
def test_a_rate_gets_back_what_a_message_took_that_did_not_begin(broker: Broker, how: str) -> None:
    send(broker, "a", "b", needs="F bot Rbot,1")
    first = broker.claim_one()
    if how == "given back":
        give_back(broker, first)
    else:
        broker.settle("park", first, delay=SECOND, reason="unknown_task")
    broker.pass_time(AHEAD)
    assert broker.claimed_ids() == ["a" if how == "given back" else "b"]


def test_a_rate_keeps_what_a_message_took_that_began(broker: Broker) -> None:
    send(broker, "a", needs="F bot Rbot,1")
    broker.settle("release", broker.claim_one())
    broker.pass_time(100 * MS - 1)
    assert broker.claimed_ids() == []
    broker.pass_time(1)
    assert broker.claimed_ids() == ["a"]


def test_what_a_rate_gets_back_is_less_by_the_time_since(broker: Broker) -> None:
    send(broker, "a", needs="F tokens Rtokens,400")  # 4 s
    first = broker.claim_one()
    broker.pass_time(SECOND)
    give_back(broker, first)
    assert broker.claimed_ids() == []
    broker.pass_time(AHEAD)
    assert broker.claimed_ids() == ["a"]


def test_others_that_wait_for_a_rate_pass_when_it_gets_something_back(broker: Broker) -> None:
    send(broker, "a", needs="C @a Rbot,1")
    send(broker, "b", needs="C @b Rbot,1")
    first = broker.claim_one()
    assert broker.claimed_ids() == []
    broker.settle("park", first, delay=SECOND, reason="unknown_task")
    assert broker.took_token()
    broker.pass_time(AHEAD)
    assert broker.claimed_ids() == ["b"]


def test_a_delivery_gives_back_only_once(broker: Broker) -> None:
    send(broker, *"abc", needs="F bot Rbot,1")
    first = broker.claim_one()
    give_back(broker, first)
    assert broker.settle_many([commands.given_back(first)]) == ["a"]
    broker.pass_time(AHEAD)
    assert broker.claimed_ids() == ["a"]
    assert broker.claimed_ids() == []


def test_nothing_is_given_back_by_a_clock_that_was_set_back(broker: Broker) -> None:
    send(broker, "a", needs="F bot Rbot,1")
    first = broker.claim_one()
    broker.pass_time(-60 * SECOND)
    give_back(broker, first)
    broker.pass_time(90 * MS)
    assert broker.claimed_ids() == []
    broker.pass_time(10 * MS)
    assert broker.claimed_ids() == ["a"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_never_more_messages_begin_than_a_rate_allows_however_many_are_given_back(broker: Broker, seed: int) -> None:
    chance, began, number, held = random.Random(seed), [], 0, []
    broker.do(commands.set_limit(broker.keys, "some", "10 1000000 3"))
    for _ in range(150):
        ids = [f"m{number + each}" for each in range(chance.choice([0, 1, 3]))]
        number += len(ids)
        if ids:
            send(broker, *ids, needs="F some Rsome,1")
        held += broker.claim(limit=chance.choice([0, 1, 2, 10])).deliveries
        chance.shuffle(held)
        kept = held[: chance.randint(0, len(held))]
        back = held[len(kept) :]
        give_back(broker, *[each for each in back if chance.random() < 0.5])
        settled = [each for each in back if broker.state_of(each.id) == "processing"]
        began += [each.fence for each in settled]
        broker.ack(*settled)
        held = kept
        broker.pass_time(chance.choice([0, 1, 30 * MS, 100 * MS, 400 * MS]))
    began += [each.fence for each in held]
    began.sort()
    for at, first in enumerate(began):
        for last in range(at, len(began)):
            # A window from one start to another, with both.
            assert last - at + 1 <= 3 + (began[last] - first + AHEAD) / (100 * MS), (first, began[last])
    give_back(broker, *held)
