"""What each command sends, and how it reads the raw reply. No Redis."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from redisq.broker import commands, exchanges
from redisq.broker.commands import (
    Claimed,
    Command,
    Dedupe,
    Enqueue,
    Enqueued,
    Found,
    Outcome,
    QueueView,
    Restored,
    Room,
    Row,
    Settlement,
)  # fmt: skip
from redisq.broker.keys import ExchangeKeys, GroupKeys, QueueKeys
from redisq.message import PLAIN, Delivery, Meta

KEYS = QueueKeys("q")
EXCHANGE = ExchangeKeys("x")


def _claim(limit: int = 1, apart: int | None = None) -> Command[Claimed]:
    return commands.claim(KEYS, worker="w", limit=limit, lease=30, max_crashes=3, apart=apart)


#: command -> script, args, numbered
SENT = {
    "enqueue of a plain message": (commands.enqueue(KEYS, [Enqueue("a", b"A")]), "enqueue", ("a", b"A", ""), True),
    "enqueue with priority": (commands.enqueue(KEYS, [Enqueue("a", b"A", 5)]), "enqueue", ("a", b"A", "5 0"), True),
    "enqueue with a time": (commands.enqueue(KEYS, [Enqueue("a", b"A", 0, "+7")]), "enqueue", ("a", b"A", "0 +7"), True),
    "enqueue that expires": (
        commands.enqueue(KEYS, [Enqueue("a", b"A", expires="+9")]), "enqueue", ("a", b"A", "0 0 +9"), True,
    ),
    "enqueue of two": (
        commands.enqueue(KEYS, [Enqueue("a", b"A"), Enqueue("b", b"", 1, "2")]),
        "enqueue", ("a", b"A", "", "b", b"", "1 2"), True,
    ),
    "enqueue with a lane, limits and a cap": (
        commands.enqueue(
            KEYS, [Enqueue("a", b"A", 5, descriptor="5 C @1 Rbot,1", lane_cap=9, definitions={"bot": "1 2 3", "llm": "8"})]
        ),
        "enqueue", ("a", b"A", "5 0|5 C @1 Rbot,1|9||bot=1 2 3;llm=8;"), True,
    ),
    "enqueue once at the door": (
        commands.enqueue(KEYS, [Enqueue("a", b"A", dedupe=Dedupe("k", "extend", 7))]),
        "enqueue", ("a", b"A", "|||extend 7 k|"), True,
    ),
    "limited": (
        commands.settle(KEYS, [commands.limited("a", 1, gate="bot", pause=9, jitter=2, text="Too many")]),
        "settle", (0, 0, "limited", "a", 1, 9, "limited", "bot 2 Too many"), True,
    ),
    "pause of a gate": (commands.pause_gate(KEYS, "chat:42", 7), "pause_gate", ("chat:42", 7), False),
    "pause of a gate without an end": (commands.pause_gate(KEYS, "@42", None), "pause_gate", ("@42", "inf"), False),
    "a limit": (commands.set_limit(KEYS, "bot", "1 2 3"), "set_limit", ("operator", "bot", "1 2 3"), True),
    "kick": (commands.kick(KEYS, ["bot", "chat:42"]), "kick", ("bot", "chat:42"), False),
    "join": (commands.join(KEYS, GroupKeys("g", "ns")), "join", ("ns:redisq:group:g",), False),
    "leave": (commands.join(KEYS, None), "join", ("",), False),
    "enqueue into a group": (
        commands.enqueue(KEYS, [Enqueue("a", b"A", descriptor="0 F bot Rbot,1", group="redisq:group:g")]),
        "enqueue", ("a", b"A", "|0 F bot Rbot,1||||redisq:group:g"), True,
    ),
    "claim": (_claim(), "claim", ("w", 1, 30, 3, 1000, 1_000_000), True),
    "claim for two pools": (
        commands.claim(
            KEYS, worker="w", limit=9, lease=30, max_crashes=3, rooms=[Room((), 9, 4), Room(("a", "b"), 2)], look=50
        ),
        "claim",
        ("w", 9, 30, 3, 1000, 1_000_000, 50, 9, 4, b"", 2, 0, b"\0a\0b\0"),
        True,
    ),
    "claim names no task of the first pool, but what is never leased ahead": (
        commands.claim(
            KEYS, worker="w", limit=9, lease=30, max_crashes=3, rooms=[Room(("a", "b"), 9, 4, ("b",)), Room(("c",), 2, 1, ("c",))]
        ),
        "claim",
        ("w", 9, 30, 3, 1000, 1_000_000, 0, 9, 4, b"\1b\0", 2, 1, b"\0c\0\1c\0"),
        True,
    ),
    "claim by one who runs suspects apart": (_claim(apart=1), "claim", ("w", 1, 30, 3, 1, 2), True),
    "settle of acks": (
        commands.settle(KEYS, [Settlement("ack", "a", 1), Settlement("ack", "b", 2)], 9), "settle", (9, 2, "a", 1, "b", 2), True,
    ),
    "settle puts acks first": (
        commands.settle(KEYS, [Settlement("retry", "a", 1, 5, "failed", "no"), Settlement("ack", "b", 2)]),
        "settle", (0, 1, "b", 2, "retry", "a", 1, 5, "failed", "no"), True,
    ),
    "settle of nothing": (commands.settle(KEYS, []), "settle", (0, 0), True),
    "extend": (commands.extend(KEYS, [("a", 1), ("b", 2)], lease=30), "extend", (30, "a", 1, "b", 2), False),
    "wake": (commands.wake(KEYS), "wake", (), False),
    "pause": (commands.pause(KEYS, True), "pause", (1,), False),
    "resume": (commands.pause(KEYS, False), "pause", (0,), False),
    "inspect": (commands.inspect(KEYS), "inspect", (), False),
    "seek": (commands.seek(KEYS, "x y"), "seek", ("0", "x y"), False),
    "find": (commands.find(KEYS, "a"), "find", ("a",), False),
    "browse": (commands.browse(KEYS, "dead", offset=5, limit=10), "browse", ("dead", 5, 10), False),
    "remove": (
        commands.remove(KEYS, ["a", "b"], counter="purged", states=["waiting", "retry"]),
        "remove", ("purged", "waiting,retry", "a", "b"), True,
    ),
    "cancel": (commands.cancel(KEYS, ["a", "b"]), "cancel", ("a", "b"), True),
    "replay": (commands.replay(KEYS, ["a"]), "replay", ("alone", "a"), True),
    "outcome": (commands.outcome(KEYS, "a"), "outcome", ("a",), False),
    "declare": (
        commands.declare(KEYS, ttl=1, message_ttl=2, max_length=3, keep_expired=True), "declare", (1, 2, 3, 1, 0), False,
    ),
    "declare without rules": (commands.declare(KEYS), "declare", (0, 0, 0, 0, 0), False),
    "delete": (commands.delete(KEYS), "delete", (0, 0), True),
    "delete if empty": (commands.delete(KEYS, if_empty=True, most=9), "delete", (1, 9), True),
    "restore": (commands.restore(KEYS, [("a", 1), ("b", 2)]), "restore", (0, 0, "a", 1, "b", 2), True),
    "restore that counts": (commands.restore(KEYS, [("a", 1)], limit=20, age=5), "restore", (20, 5, "a", 1), True),
    "wait": (commands.wait([KEYS, QueueKeys("r")], 1), "", ("BZPOPMIN", "q:wake", "r:wake", 1), False),
}  # fmt: skip


#: The same, of exchanges of the kombu transport.
SENT_TO_EXCHANGES = {
    "bind": (exchanges.bind(EXCHANGE, [(b"r", 0), (b"s", 9)]), "bind", (b"r", 0, b"s", 9), False),
    "unbind": (exchanges.unbind(EXCHANGE, [b"r"]), "unbind", (b"r",), False),
    "routes": (exchanges.routes(EXCHANGE), "routes", (), False),
    "broadcast": (exchanges.broadcast(EXCHANGE, b"B", length=5, age=9000), "broadcast", (5, 9000, b"B"), True),
    "the last broadcast": (
        exchanges.last_broadcast(EXCHANGE), "", ("XREVRANGE", "redisq:exchange:x:stream", "+", "-", "COUNT", 1), False,
    ),
    "listen": (
        exchanges.listen({EXCHANGE: "1-0"}, limit=7, block_ms=1000), "",
        ("XREAD", "COUNT", 7, "BLOCK", 1000, "STREAMS", "redisq:exchange:x:stream", "1-0"), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("command", "script", "args", "numbered"), SENT_TO_EXCHANGES.values(), ids=SENT_TO_EXCHANGES)
def test_a_command_about_an_exchange_sends(command: Command[Any], script: str, args: tuple[Any, ...], numbered: bool) -> None:
    assert command.keys == (EXCHANGE if script else None)
    assert (command.script, command.args, command.numbered) == (script, args, numbered)


@pytest.mark.parametrize(("command", "script", "args", "numbered"), SENT.values(), ids=SENT)
def test_a_command_sends(command: Command[Any], script: str, args: tuple[Any, ...], numbered: bool) -> None:
    assert (command.script, command.args, command.numbered, command.keys) == (script, args, numbered, KEYS)


#: command, raw reply -> result
READ = {
    "all stored": (commands.enqueue(KEYS, []), [], Enqueued([], {}, [])),
    "not all stored": (commands.enqueue(KEYS, []), [b"a", b"b=x", b"c="], Enqueued(["a"], {"b": "x"}, ["c"])),
    "nothing claimed, nothing due": (_claim(), [b"7", b"", b""], Claimed([], None)),
    "nothing claimed, due later": (_claim(), [b"7", b"1500000", b""], Claimed([], 1.5)),
    "two claimed": (
        _claim(),
        [b"4102444800000000", b"0", b"0 2", b"a", b"A", b"", b"b", b"\xff", b"attempt=2 reason=failed text=no"],
        Claimed(
            [
                Delivery("a", 4102444800000000, b"A", PLAIN),
                Delivery("b", 4102444800000000, b"\xff", Meta(2, reason="failed", text="no")),
            ],
            0,
            frozenset({0, 2}),
        ),
    ),
    "dead letters of a claim": (
        _claim(),
        [b"7", b"", b"", b"a", b"A", b"", [b"b", b"B", b"reason=crashed text=no"]],
        Claimed([Delivery("a", 7, b"A", PLAIN)], None, frozenset(), [Delivery("b", 7, b"B", Meta(reason="crashed", text="no"))]),
    ),
    "all given back": (commands.restore(KEYS, []), [], Restored([], [])),
    "given back, but for stale ones and dead letters": (commands.restore(KEYS, []), [b"a", b" ", b"b"], Restored(["a"], ["b"])),
    "stale ids": (commands.settle(KEYS, []), [b"a"], ["a"]),
    "lost leases": (commands.extend(KEYS, [], lease=1), [b"a", b"lost", b"b", b"lost"], {"a": "lost", "b": "lost"}),
    "a lease of a cancelled one": (commands.extend(KEYS, [], lease=1), [b"a", b"cancel"], {"a": "cancel"}),
    "no lost leases": (commands.extend(KEYS, [], lease=1), [], {}),
    "a page of what holds a text": (commands.seek(KEYS, "x"), [b"17", b"a"], ("17", ["a"])),
    "woken": (commands.wait([KEYS], 1), [b"q:wake", b"1", b"0"], "q:wake"),
    "not woken": (commands.wait([KEYS], 1), None, None),
    "a wake": (commands.wake(KEYS), 1, None),
    "an empty queue": (
        commands.inspect(KEYS), [b"5", *[b"0"] * 6, b"", b"0", b"", b"0", b"", b"0", b"0"],
        QueueView(0, 0, 0, 0, 0, False, None, {}),
    ),
    "a queue": (
        commands.inspect(KEYS),
        [b"4102444801500000", b"1", b"2", b"3", b"4", b"5", b"17", b"4102444800000000", b"2", b"4102444800500000", b"1",
         b"4102444799000000", b"1", b"6", b"total_messages", b"15", b"stale",
         b"1"],
        QueueView(
            1, 2, 3, 4, 5, True, 2.5, {"total_messages": 15, "stale": 1}, stateless=2, overdue=2, overdue_age=1.0, expired=1,
            expired_age=2.5, bodiless=6,
        ),
    ),
    "a queue with a counter that is none": (
        commands.inspect(KEYS), [b"5", *[b"0"] * 6, b"", b"0", b"", b"0", b"", b"0", b"0", b"since", b"May", b"n", b"1"],
        QueueView(0, 0, 0, 0, 0, False, None, {"n": 1}),
    ),
    "the last page of a repair": (
        commands.repair_page(KEYS, act=False, lease=5, group="", what="messages"), [b"0", b"waiting", b"2"], ("0", {"waiting": 2}),
    ),
    "not found": (commands.find(KEYS, "a"), [], None),
    "found waiting": (
        commands.find(KEYS, "a"),
        [b"waiting", b"4102444800000000", b"2", b"A", b"", b""],
        Found("waiting", 4102444800000000, 2, b"A", PLAIN, None),
    ),
    "found in a worker's hands": (
        commands.find(KEYS, "a"),
        [b"processing", b"4.1024448e+15", b"1", b"A", b"attempt=2", b"7 5 w:1"],
        Found("processing", 4102444800000000, 1, b"A", Meta(2), "w:1"),
    ),
    "found, cancelled while it runs": (
        commands.find(KEYS, "a"),
        [b"processing", b"5", b"1", b"A", b"", b"7 5 w cancel"],
        Found("processing", 5, 1, b"A", PLAIN, "w"),
    ),
    "found, waiting for a thread of its worker": (
        commands.find(KEYS, "a"),
        [b"processing", b"5", b"1", b"A", b"", b"7 5 w waits"],
        Found("processing", 5, 1, b"A", PLAIN, "w"),
    ),
    "found, taken back": (
        commands.find(KEYS, "a"),
        [b"waiting", b"5", b"1", b"A", b"crashes=1", b"x7 5 w"],
        Found("waiting", 5, 1, b"A", Meta(crashes=1), None),
    ),
    "a page": (
        commands.browse(KEYS, "dead", offset=0, limit=1),
        [b"a", b"5", b"A", b"crashes=1"],
        [Row("a", 5, b"A", Meta(crashes=1))],
    ),
    "an empty page": (commands.browse(KEYS, "dead", offset=0, limit=1), [], []),
    "a job that is done": (commands.outcome(KEYS, "a"), [b"done", b"\x01"], Outcome("done", b"\x01")),
    "a job that is dead": (commands.outcome(KEYS, "a"), [b"dead", b"attempt=4"], Outcome("dead", meta=Meta(4))),
    "a job that is gone": (commands.outcome(KEYS, "a"), [b"gone"], Outcome("gone")),
    "a job that is open": (commands.outcome(KEYS, "a"), [b"open"], Outcome("open")),
}  # fmt: skip


@pytest.mark.parametrize(("command", "reply", "result"), READ.values(), ids=READ)
def test_a_reply_reads(command: Command[Any], reply: Any, result: Any) -> None:
    assert command.parse(reply) == result


def test_a_command_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        commands.wake(KEYS).script = "claim"  # type: ignore[misc]


A, B = QueueKeys("a"), QueueKeys("b")


def _one(keys: QueueKeys, ident: str) -> Command[Enqueued]:
    return commands.enqueue(keys, [Enqueue(ident, b"body", 0, "0", "")])


RULES = commands.declare(A, ttl=1)


@pytest.mark.parametrize(
    ("several", "writes"),
    [
        ([], []),
        ([_one(A, "1"), _one(A, "2")], [[("enqueue", "a", ["1", "2"])]]),
        # Messages that go to two queues each: one command a queue.
        (
            [_one(A, "1"), _one(B, "1"), _one(A, "2"), _one(B, "2")],
            [[("enqueue", "a", ["1", "2"]), ("enqueue", "b", ["1", "2"])]],
        ),
        # A queue has one enqueue a write, and its rules come before it.
        (
            [_one(A, "1"), _one(A, "2"), _one(A, "3"), _one(A, "4"), _one(B, "5")],
            [[("enqueue", "a", ["1", "2", "3"])], [("enqueue", "a", ["4"]), ("enqueue", "b", ["5"])]],
        ),
        (
            [_one(A, "1"), _one(B, "2"), RULES, _one(A, "3")],
            [[("enqueue", "a", ["1"]), ("enqueue", "b", ["2"])], [("declare", "a", None), ("enqueue", "a", ["3"])]],
        ),
    ],
)
def test_commands_leave_together_unless_one_could_overtake_another(
    several: list[Command[Any]], writes: list[list[tuple[str, str, list[str] | None]]]
) -> None:
    shown = [
        [
            (command.script, command.keys.prefix, [*command.args[::3]] if command.script == "enqueue" else None)
            for command in write
            if isinstance(command.keys, QueueKeys)
        ]
        for write in commands.trips(several, limit=3)
    ]
    assert shown == writes
