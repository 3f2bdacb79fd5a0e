"""What the broker promises a worker that says how much room its pools have, and one that asks for large messages."""

from __future__ import annotations

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Claimed, Enqueue, Room
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.scripts import Scripts
from redisq.codec.msgpack import encode
from redisq.message import Message
from tests.faces import LEASE, SECOND, Broker

LONG_NAME = "module." + 200 * "x"


def send(broker: Broker, *calls: tuple[str, str], descriptor: str = "", rules: dict[str, str] | None = None) -> None:
    """Enqueue calls: id and task. Encoded as the app encodes them."""
    broker.do(
        commands.enqueue(
            broker.keys,
            [Enqueue(ident, encode(Message(task)), descriptor=descriptor, definitions=rules) for ident, task in calls],
        )
    )


def claim(broker: Broker, *rooms: Room, limit: int = 100, look: int = 0) -> Claimed:
    return broker.do(
        commands.claim(broker.keys, worker="w", limit=limit, lease=LEASE, max_crashes=3, apart=1, rooms=rooms, look=look)
    )


def ids(claimed: Claimed) -> list[str]:
    return [delivery.id for delivery in claimed.deliveries]


def loop_and_threads(loop: int, threads: int, ahead: int = 0) -> list[Room]:
    return [Room((), loop), Room(("sync", LONG_NAME), threads, ahead)]


def test_a_claim_takes_what_has_room_and_leaves_the_rest_in_order(broker: Broker) -> None:
    send(broker, ("s1", "sync"), ("s2", "sync"), ("a1", "other"), ("s3", LONG_NAME), ("a2", "other"))
    claimed = claim(broker, *loop_and_threads(9, 1))
    assert ids(claimed) == ["s1", "a1", "a2"]
    assert claimed.short == {1}
    assert broker.claimed_ids() == ["s2", "s3"]


def test_a_message_with_a_tuple_has_its_tasks_room(broker: Broker) -> None:
    body = encode(Message("sync", ((1, 2),)))
    assert body[1] != encode(Message("sync"))[1]
    broker.do(commands.enqueue(broker.keys, [Enqueue("s1", body)]))
    assert ids(claim(broker, *loop_and_threads(9, 0))) == []
    assert ids(claim(broker, *loop_and_threads(0, 9))) == ["s1"]


def test_a_claim_with_room_for_all_is_short_of_nothing(broker: Broker) -> None:
    send(broker, ("s1", "sync"), ("a1", "other"))
    claimed = claim(broker, *loop_and_threads(9, 9))
    assert ids(claimed) == ["s1", "a1"]
    assert claimed.short == frozenset()


def test_the_first_room_is_for_all_that_no_other_one_names(broker: Broker) -> None:
    send(broker, ("a1", "other"), ("a2", "unknown"), ("s1", "sync"))
    broker.enqueue("no message of redisq")
    claimed = claim(broker, *loop_and_threads(0, 9))
    assert ids(claimed) == ["s1"]
    assert claimed.short == {0}
    assert ids(claim(broker, *loop_and_threads(9, 0))) == ["a1", "a2", "no message of redisq"]


def test_what_has_no_room_is_no_work_for_the_caller_but_wakes_others(broker: Broker) -> None:
    send(broker, ("s1", "sync"), ("s2", "sync"))
    broker.raw.delete(broker.keys.wake)
    claimed = claim(broker, *loop_and_threads(9, 1))
    assert ids(claimed) == ["s1"]
    assert claimed.next_due == pytest.approx(LEASE / SECOND), "nothing to do but for its own lease"
    assert broker.raw.exists(broker.keys.wake)


def test_a_claim_looks_no_further_than_it_is_told_to(broker: Broker) -> None:
    send(broker, *((f"s{number}", "sync") for number in range(30)), ("a1", "other"))
    assert ids(claim(broker, *loop_and_threads(9, 0), limit=9)) == []
    assert ids(claim(broker, *loop_and_threads(9, 0), limit=9, look=30)) == []
    assert ids(claim(broker, *loop_and_threads(9, 0), limit=9, look=31)) == ["a1"]


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "with lanes"])
@pytest.mark.parametrize(("large", "found"), [(3, ["a1"]), (4, [])], ids=["less", "more"])
def test_a_claim_looks_past_a_megabyte_at_most(broker: Broker, gated: bool, large: int, found: list[str]) -> None:
    # The first one is small: it tells nothing of those behind it.
    calls = {"s0": Message("sync"), **{f"s{number + 1}": Message("sync", ("x" * 300_000,)) for number in range(large)}}
    calls["a1"] = Message("other", ("x" * 300_000,))
    messages = [Enqueue(ident, encode(call), descriptor=f"0 C @{ident}" if gated else "") for ident, call in calls.items()]
    broker.do(commands.enqueue(broker.keys, messages))
    assert ids(claim(broker, *loop_and_threads(9, 0), limit=9, look=500)) == found
    assert ids(claim(broker, *loop_and_threads(9, 9))) == [ident for ident in calls if ident not in found], "in order"


def test_an_expired_message_is_dropped_whether_or_not_it_has_room(broker: Broker) -> None:
    broker.do(commands.enqueue(broker.keys, [Enqueue("s1", encode(Message("sync")), expires="+5")]))
    broker.pass_time(6)
    assert ids(claim(broker, *loop_and_threads(9, 0))) == []
    assert broker.find("s1") is None


def test_a_plain_queue_gives_what_begins_soon(broker: Broker) -> None:
    send(broker, ("s1", "sync"), ("s2", "sync"), ("s3", "sync"))
    assert ids(claim(broker, *loop_and_threads(9, 2, ahead=1))) == ["s1", "s2"]


@pytest.mark.parametrize("loop", [[], [Room((), 9)]], ids=["threads only", "loop and threads"])
def test_some_tasks_are_only_given_what_begins_at_once(broker: Broker, loop: list[Room]) -> None:
    def threads(free: int, ahead: int) -> list[Room]:
        return [*loop, Room(("sync", "once"), free, ahead, never_ahead=("once",))]

    send(broker, ("s1", "sync"), ("s2", "sync"), ("o1", "once"), ("o2", "once"), ("s3", "sync"))
    assert ids(claim(broker, *threads(9, 8))) == ["s1", "s2"], "nothing passes it"
    claimed = claim(broker, *threads(9, 8))
    assert ids(claimed) == ["o1"]
    assert claimed.short == {len(loop)}
    assert ids(claim(broker, *threads(1, 1))) == []
    assert ids(claim(broker, *threads(9, 7))) == ["o2", "s3"]


@pytest.mark.parametrize("descriptor", ["0 F bot Rbot,1", "0 C @1 Rbot,1", "0 C @1"])
def test_a_queue_with_gates_gives_what_begins_at_once_and_spends_nothing_on_the_rest(broker: Broker, descriptor: str) -> None:
    rules = {"bot": "1 1000000 3"} if "bot" in descriptor else {}
    send(broker, ("s1", "sync"), ("s2", "sync"), descriptor=descriptor, rules=rules)
    for _ in range(5):
        claimed = claim(broker, *loop_and_threads(9, 3, ahead=3))
        assert ids(claimed) == []
        assert claimed.short == {1}
    assert ids(claim(broker, *loop_and_threads(9, 3, ahead=2))) == ["s1"]
    if "@" not in descriptor:
        assert ids(claim(broker, *loop_and_threads(9, 1))) == ["s2"]


def test_what_waits_at_a_limit_may_find_no_room_when_it_opens(broker: Broker) -> None:
    rules = {"bot": "1 1000000 1"}
    send(broker, ("s1", "sync"), ("s2", "sync"), descriptor="0 F bot Rbot,1", rules=rules)
    send(broker, ("a1", "other"), descriptor="0 F bot+a Rbot,1")
    assert ids(claim(broker, *loop_and_threads(9, 1))) == ["s1"]
    assert ids(claim(broker, *loop_and_threads(9, 1))) == []
    broker.pass_time(SECOND)
    assert ids(claim(broker, *loop_and_threads(9, 0))) == ["a1"], "what has no room does not hold up others at its limit"
    broker.pass_time(SECOND)
    assert ids(claim(broker, *loop_and_threads(9, 1))) == ["s2"]


def test_a_lane_keeps_its_order_when_its_first_message_has_no_room(broker: Broker) -> None:
    send(broker, ("s1", "sync"), ("a1", "other"), descriptor="0 C @1")
    send(broker, ("a2", "other"), descriptor="0 C @2")
    send(broker, ("a3", "other"))
    assert ids(claim(broker, *loop_and_threads(9, 0))) == ["a2", "a3"]
    assert ids(claim(broker, *loop_and_threads(9, 1))) == ["s1"]


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "with lanes"])
def test_a_claim_carries_four_megabytes_of_bodies_or_one_body(broker: Broker, gated: bool) -> None:
    sizes = {"a": 100, "b": 3_000_000, "c": 1_000_000, "d": 200_000, "e": 5_000_000, "f": 10}
    for number, (ident, size) in enumerate(sizes.items()):
        descriptor = f"0 C @{number}" if gated else ""
        broker.do(commands.enqueue(broker.keys, [Enqueue(ident, size * b"x", descriptor=descriptor)]))
    batches = []
    for _ in range(4):
        claimed = broker.claim()
        batches.append(ids(claimed))
        assert (claimed.next_due == 0) == (len(batches) < 4)
    assert batches == [["a", "b", "c"], ["d"], ["e"], ["f"]]


@pytest.mark.parametrize("gates", ["C @{0}", "F bot{0} Rbot,1", ""])
def test_a_small_message_before_large_ones_does_not_make_a_claim_read_them_all(raw: redis.Redis, gates: str) -> None:
    keys, claims = QueueKeys("chat_api"), Connector(raw, Scripts())
    sizes = {"small": 10} | {f"large{number}": 1_000_000 for number in range(60)}
    for number, (ident, size) in enumerate(sizes.items()):
        descriptor = gates and "0 " + gates.format(number)
        claims.execute(commands.enqueue(keys, [Enqueue(ident, size * b"x", descriptor=descriptor)]))
    read = 0
    with raw.monitor() as monitor:
        claimed = claims.execute(commands.claim(keys, worker="w", limit=100, lease=LEASE, max_crashes=3))
        raw.echo("done")
        while (command := monitor.next_command()["command"].split()) != ["ECHO", "done"]:
            if command[:2] == ["HMGET", "chat_api:messages"]:
                read += sum(sizes[ident] for ident in command[2:])
    assert ids(claimed) == ["small", "large0", "large1", "large2", "large3"]
    assert read < (20_000_000 if gates else 40_000_000)


def test_large_bodies_do_not_change_the_order(broker: Broker) -> None:
    names = [f"m{number}" for number in range(20)]
    broker.do(commands.enqueue(broker.keys, [Enqueue(name, 900_000 * b"x") for name in names]))
    got = []
    while claimed := ids(broker.claim(limit=10)):
        assert len(claimed) == 4
        got += claimed
    assert got == names
