"""Queues of one group share their limits: what is promised of that, over every implementation of the broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from redisq.broker import commands, gates
from redisq.broker.commands import Enqueue, Room
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.codec.msgpack import encode
from redisq.errors import QueueConflict
from redisq.message import Delivery, Message
from tests.contracts.gates_check import check, read
from tests.faces import LEASE, SECOND, Broker

RULES = {"bot": "10 1000000 1", "llm": "2", "tokens": "100 1000000 50"}
MS = 1000
GROUP = GroupKeys("telegram")
BOT, SLOT = "F bot Rbot,1", "F llm Sllm,1"


class Pair:
    """Two queues of a group, at one time."""

    def __init__(self, answers: Broker, casts: Broker) -> None:
        self.answers, self.casts = answers, casts

    def pass_time(self, us: int) -> None:
        for broker in (self.answers, self.casts):
            broker.pass_time(us)

    def pass_time_beside_answers(self, us: int) -> None:
        """Somebody looks after the other queue meanwhile: no gap there (I12)."""
        for _ in range(3):
            self.pass_time(us // 3)
            self.casts.claim(limit=0)
        self.pass_time(us % 3)


def send(broker: Broker, *ids: str, needs: str, group: str = GROUP.prefix) -> None:
    messages = [Enqueue(each, b"", descriptor=f"0 {needs}", definitions=RULES, group=group) for each in ids]
    broker.do(commands.enqueue(broker.keys, messages))


def steps(broker: Broker, work: Any) -> Any:
    answer = None
    try:
        while True:
            step = work.send(answer)
            answer = [broker.do(each) for each in step] if isinstance(step, tuple) else broker.do(step)
    except StopIteration as stop:
        return stop.value


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [each.id for each in deliveries]


@pytest.fixture
def pair(broker: Broker) -> Iterator[Pair]:
    pair = Pair(broker, broker.at("casts"))
    for each in (pair.answers, pair.casts):
        each.do(commands.join(each.keys, GROUP))
    yield pair
    for each in (pair.answers, pair.casts):
        check(read(each.raw, each.keys), each.now, alone=False)


def test_a_rate_is_that_of_all_queues_together(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=BOT)
    send(pair.casts, "c1", needs=BOT)
    assert pair.answers.claimed_ids() == ["a1"]
    claimed = pair.casts.claim()
    assert (claimed.deliveries, claimed.next_due) == ([], 0.1)
    pair.pass_time(100 * MS)
    assert pair.casts.claimed_ids() == ["c1"]
    assert pair.answers.claimed_ids() == []


def test_slots_are_those_of_all_queues_together(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    send(pair.casts, "c1", needs=SLOT)
    running = pair.answers.claim().deliveries
    assert ids_of(running) == ["a1", "a2"]
    assert pair.casts.claimed_ids() == []


def test_a_slot_that_comes_free_in_one_queue_wakes_the_other(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    send(pair.casts, "c1", needs=SLOT)
    running = pair.answers.claim().deliveries
    pair.casts.claim()
    pair.casts.took_token()
    pair.answers.ack(running[0])
    assert pair.casts.took_token()
    assert pair.casts.claimed_ids() == ["c1"]


def test_slots_of_a_queue_whose_workers_are_all_dead_are_free_when_their_leases_end(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    send(pair.casts, "c1", "c2", "c3", needs=SLOT)
    pair.answers.claim()
    claimed = pair.casts.claim()
    assert (claimed.deliveries, claimed.next_due) == ([], LEASE / SECOND)
    pair.pass_time_beside_answers(LEASE - 1)
    assert pair.casts.claimed_ids() == []
    pair.pass_time(1)
    assert pair.casts.claimed_ids() == ["c1", "c2"]


def test_a_slot_whose_lease_is_extended_there_stays_taken(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    send(pair.casts, "c1", "c2", needs=SLOT)
    _, lives = pair.answers.claim().deliveries
    pair.casts.claim()
    pair.pass_time_beside_answers(LEASE // 3)
    pair.answers.extend(lives)
    pair.pass_time_beside_answers(LEASE - LEASE // 3)
    assert pair.casts.claimed_ids() == ["c1"]


def test_a_holder_whose_lease_ran_out_cannot_have_its_slot_back(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    late = pair.answers.claim().deliveries
    pair.pass_time_beside_answers(LEASE // 2)
    pair.answers.do(commands.pause(pair.answers.keys, False))
    pair.pass_time_beside_answers(LEASE // 2)
    assert pair.answers.extend(*late) == {"a1": "lost", "a2": "lost"}
    assert pair.answers.ack(*late) == []  # what it did counts all the same, as nobody else has it


def test_a_gap_frees_no_slots_in_another_queue(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=SLOT)
    send(pair.casts, "c1", needs=SLOT)
    pair.answers.claim()
    pair.casts.claim()
    pair.pass_time(3 * LEASE)  # the server was away
    assert pair.casts.claimed_ids() == []


def test_a_pause_is_for_all_queues_and_so_is_its_end(pair: Pair) -> None:
    send(pair.casts, "c1", needs=BOT)
    steps(pair.answers, gates.pause(pair.answers.keys, "bot", None))
    assert pair.casts.claimed_ids() == []
    pair.casts.took_token()
    steps(pair.answers, gates.resume(pair.answers.keys, "bot"))
    assert pair.casts.took_token()
    assert pair.casts.claimed_ids() == ["c1"]


def test_a_class_that_is_resumed_in_one_queue_goes_on_in_all(pair: Pair) -> None:
    send(pair.casts, "c1", needs="F bot:1 Rbot:1,1")
    steps(pair.answers, gates.pause(pair.answers.keys, "bot", None))
    assert pair.casts.claimed_ids() == []
    steps(pair.answers, gates.resume(pair.answers.keys, "bot"))
    assert pair.casts.claimed_ids() == ["c1"]


def test_a_platform_that_refuses_one_queue_is_left_alone_by_all(pair: Pair) -> None:
    send(pair.answers, "a1", needs=BOT)
    send(pair.casts, "c1", needs=BOT)
    delivery = pair.answers.claim_one()
    refusal = commands.limited(delivery.id, delivery.fence, gate="bot", pause=5 * SECOND, jitter=0)
    pair.answers.settle_many([refusal])
    pair.pass_time(5 * SECOND - 1)
    assert pair.casts.claimed_ids() == []
    pair.pass_time(1)
    assert len(pair.casts.claimed_ids() + pair.answers.claimed_ids()) == 1


def test_a_rule_that_an_operator_sets_is_for_all_queues(pair: Pair) -> None:
    send(pair.answers, "a1", needs=BOT)
    send(pair.casts, *(f"c{number}" for number in range(5)), needs=BOT)
    steps(pair.answers, gates.set_limit(pair.answers.keys, "bot", "100 1000000 3"))
    assert len(pair.casts.claimed_ids()) == 3


def test_who_waits_for_a_limit_gets_a_turn_beside_a_queue_that_never_ends(pair: Pair) -> None:
    send(pair.casts, *(f"c{number}" for number in range(20)), needs=BOT)
    pair.casts.claim()
    send(pair.answers, "a1", "a2", needs=BOT)
    order = []
    for _ in range(4):
        pair.answers.claim()
        pair.pass_time(100 * MS)
        # The loud one is quicker every time.
        order += pair.casts.claimed_ids() or pair.answers.claimed_ids()
    assert order[:3] in (["a1", "c1", "a2"], ["c1", "a1", "c2"])


def test_a_queue_without_workers_holds_up_nobody(pair: Pair) -> None:
    send(pair.casts, *(f"c{number}" for number in range(20)), needs=BOT)
    send(pair.answers, "a1", needs=BOT)
    pair.casts.claim()
    pair.answers.claim()  # its worker's last word
    pair.pass_time(3 * SECOND)
    assert pair.casts.claimed_ids() == ["c1"]
    pair.pass_time(100 * MS)
    assert pair.casts.claimed_ids() == ["c2"]


@pytest.mark.parametrize("pause", [25 * MS, 200 * MS])
def test_what_has_no_room_in_its_queue_holds_up_no_other_queue_at_a_limit(pair: Pair, pause: int) -> None:
    send(pair.casts, *(f"c{number}" for number in range(20)), needs=BOT)
    sync = [Enqueue(f"s{at}", encode(Message("sync")), descriptor=f"0 {BOT}", group=GROUP.prefix) for at in range(5)]
    pair.answers.do(commands.enqueue(pair.answers.keys, sync))
    got, looked = [], -pause
    for at in range(0, SECOND, 25 * MS):
        got += pair.casts.claimed_ids()
        if at - looked >= pause:
            # Its threads are busy, its loop is not: so it looks for other messages.
            looked, rooms = at, [Room((), 9), Room(("sync",), 0)]
            answer = pair.answers.do(
                commands.claim(pair.answers.keys, worker="w", limit=9, lease=LEASE, max_crashes=3, rooms=rooms)
            )
            assert (answer.deliveries, answer.short) == ([], {1})
        pair.pass_time(25 * MS)
    assert got == [f"c{number}" for number in range(10)], "ten a second, as the limit says"


def test_lanes_are_of_their_queue_alone(pair: Pair) -> None:
    send(pair.answers, "a1", needs="C @42")
    send(pair.casts, "c1", needs="C @42")
    assert pair.answers.claimed_ids() == ["a1"]
    assert pair.casts.claimed_ids() == ["c1"]


def test_the_first_message_puts_its_queue_in_the_group(broker: Broker) -> None:
    casts = broker.at("casts")
    send(broker, "a1", needs=BOT)
    send(casts, "c1", needs=BOT)
    assert broker.claimed_ids() == ["a1"]
    assert casts.claimed_ids() == []


def test_what_a_queue_has_used_up_comes_along_when_it_joins(broker: Broker) -> None:
    send(broker, "a1", "a2", needs=BOT, group="")
    steps(broker, gates.set_limit(broker.keys, "llm", "5"))
    steps(broker, gates.pause(broker.keys, "tokens", 9 * SECOND))
    assert broker.claimed_ids() == ["a1"]
    casts = broker.at("casts")
    send(casts, "c1", needs=BOT)
    broker.do(commands.join(broker.keys, GROUP))
    broker.do(commands.join(broker.keys, GROUP))
    assert casts.claimed_ids() == []
    views = {view.name: view for view in steps(casts, gates.read_limits(casts.keys))}
    assert (views["llm"].definition, views["llm"].by_operator) == ("5", True)
    assert views["tokens"].paused_for > 0
    assert {view.group for view in views.values()} == {"telegram"}


def test_a_queue_that_leaves_has_limits_of_its_own(pair: Pair) -> None:
    send(pair.answers, "a1", "a2", needs=BOT)
    send(pair.casts, "c1", needs=BOT)
    pair.answers.claim()
    pair.casts.do(commands.join(pair.casts.keys, None))
    assert pair.casts.claimed_ids() == []  # what was used up counts for it too
    pair.pass_time(100 * MS)
    assert pair.casts.claimed_ids() == ["c1"]
    assert pair.answers.claimed_ids() == ["a2"]


def test_the_code_that_runs_says_in_which_group_a_queue_is(broker: Broker) -> None:
    def group() -> Any:
        return broker.raw.hget(broker.keys.named("config"), "group")

    steps(broker, gates.define_limits(broker.keys, RULES, "telegram"))
    assert group() == GROUP.prefix.encode()
    steps(broker, gates.define_limits(broker.keys, {}))
    assert group() == GROUP.prefix.encode()  # code without limits has no say
    steps(broker, gates.define_limits(broker.keys, RULES, "slack"))
    assert group() == GroupKeys("slack").prefix.encode()
    assert broker.raw.zrange(GROUP.named("queues"), 0, -1) == []
    steps(broker, gates.define_limits(broker.keys, RULES))
    assert group() is None


def test_a_queue_that_is_deleted_leaves_the_group_and_the_others_as_they_are(pair: Pair) -> None:
    send(pair.answers, "a1", needs=BOT)
    steps(pair.casts, gates.pause(pair.casts.keys, "bot", 5 * SECOND))
    pair.casts.do(commands.delete(pair.casts.keys))
    assert pair.answers.raw.zrange(GROUP.named("queues"), 0, -1) == [pair.answers.keys.prefix.encode()]
    assert pair.answers.claimed_ids() == []


def test_a_group_of_a_namespace_is_of_its_queues(broker: Broker) -> None:
    group = GroupKeys("telegram", "bots")
    assert GroupKeys.of_prefix(group.prefix) == group
    assert group.queue("bots:answers") == QueueKeys("answers", "bots")
    spaced = broker.at("answers", "bots")
    send(spaced, "a1", needs=BOT, group=group.prefix)
    send(broker, "a1", needs=BOT)
    assert spaced.claimed_ids() == broker.claimed_ids() == ["a1"]
    assert [view.group for view in steps(spaced, gates.read_limits(spaced.keys))] == ["telegram"] * 3


@pytest.mark.parametrize("name", ["tat", "pauses", "limits", "queues", "turns"])
@pytest.mark.parametrize("how", ["join", "enqueue", "claim"])
def test_a_key_of_another_type_stops_a_call_before_it_changes_anything(broker: Broker, name: str, how: str) -> None:
    if how == "claim":
        send(broker, "a1", needs=BOT)
    broker.raw.delete(GROUP.named(name))
    broker.raw.set(GROUP.named(name), "hello")
    before = broker.view()
    calls = {
        "join": lambda: broker.do(commands.join(broker.keys, GROUP)),
        "claim": broker.claim,
        "enqueue": lambda: send(broker, "a1", needs=BOT),
    }
    with pytest.raises(QueueConflict):
        calls[how]()
    assert broker.view() == before
    broker.raw.delete(GROUP.named(name))
