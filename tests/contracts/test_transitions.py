"""Every arrow of `redisq.states.TRANSITIONS`, with all keys of the queue before and after the call.

A row names the arrows that it shows, the state before, the command, and what is different after. In all rows the time
is NOW, a lease takes 30 s, the caller is `c`, and this is its call number 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Command, Dedupe, Enqueue, Settlement
from redisq.broker.keys import QueueKeys
from redisq.states import TRANSITIONS
from tests.clock import START as NOW
from tests.clock import scripts, set_clock
from tests.keyspace import State, dump, load

KEYS = QueueKeys("q")
LEASE = 30_000_000
SECOND = 1_000_000
SCRIPTS = scripts()

#: A queue that was in use until a moment ago.
USED = {"config": {"layout": 1, "lease": LEASE}, "clock": NOW - 1}
TOKEN = {"wake": {"1": 0}}
BODY = {"messages": {"a": "A"}}
#: `a` is in its first lease: fence 7, place 5 in main, held by w.
LEASED = USED | BODY | {"processing": {"a": NOW + 1}, "leases": {"a": "7 5 w"}}
EXPIRED = LEASED | {"processing": {"a": NOW}}
#: Somebody cancelled it since.
CANCELLED = LEASED | {"leases": {"a": "7 5 w cancel"}}
TAKEN_BACK = USED | BODY | {"main": {"a": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": "crashes=1 score=5"}}
SUSPECTED = TAKEN_BACK | {"meta": {"a": "crashes=2 score=5"}}
DEAD = USED | BODY | {"dlq": {"a": NOW - 9}, "meta": {"a": "attempt=4 score=5 expires=1 reason=exhausted text=no"}}
CRASHED = f"died={NOW} reason=crashed text=the worker died or lost its lease 3 times"
GONE = None

#: `a` in lane 1 leaves one slot of llm and one a second of bot to the others.
LINE = "0 C @1 Rbot,1 Sllm,1"
RULES = {"bot": "1 1000000 1", "llm": "1"}
GATED = {"config": {"layout": 1, "lease": LEASE, "gated": 1}}
GATED_LEASE = LEASED | GATED | {"needs": {"a": LINE}, "lanes": {"@1": "a"}, "slots": {"llm": 1}}
#: `b` waits behind it.
FOLLOWED = GATED_LEASE | {
    "main": {"b": 9}, "messages": {"a": "A", "b": "B"}, "needs": {"a": LINE, "b": "0 C @1"}, "flow": {"@1": {"b": 9}},
}  # fmt: skip


def enqueue(*messages: Enqueue) -> Command[Any]:
    return commands.enqueue(KEYS, messages)


def rules(*, ttl: int = 0, message_ttl: int = 0, max_length: int = 0, keep_expired: int = 0) -> str:
    return f"ttl={ttl} message_ttl={message_ttl} max_length={max_length} keep_expired={keep_expired}"


def claim(limit: int = 10, apart: int | None = None) -> Command[Any]:
    return commands.claim(KEYS, worker="v", limit=limit, lease=LEASE, max_crashes=3, apart=apart)


def settle(op: str, delay: int = 0, reason: str = "none", text: str = "", fence: int = 7) -> Command[Any]:
    return commands.settle(KEYS, [Settlement(op, "a", fence, delay, reason, text)])


def remove(*states: str, counter: str = "cancelled") -> Command[Any]:
    return commands.remove(KEYS, ["a"], counter=counter, states=states)


def cancel() -> Command[Any]:
    return commands.cancel(KEYS, ["a"])


def extend(fence: int) -> Command[Any]:
    return commands.extend(KEYS, [("a", fence)], lease=LEASE)


class Row(NamedTuple):
    script: str
    events: list[str]
    name: str
    before: State
    command: Command[Any]
    expected: State


def row(script: str, events: str, name: str, before: State, command: Command[Any], after: State) -> Row:
    """`after` says only what is different from `before`; the clock is at NOW unless it says otherwise."""
    changed = {"clock": NOW} | dict(after)
    expected = {key: content for key, content in (dict(before) | changed).items() if content is not GONE}
    return Row(script, events.split("; ") if events else [], name, before, command, expected)


ROWS = [
    row(
        "enqueue", "enqueue", "a first message",
        {},
        enqueue(Enqueue("a", b"A")),
        {"main": {"a": NOW}, **BODY, **TOKEN, "stats": {"total_messages": 1}, "config": {"layout": 1}, "calls": {"c": "1"}},
    ),
    row(
        "enqueue", "enqueue", "two, one with a head start of 10, in a queue whose clock is ahead",
        USED | {"clock": NOW + 50},
        enqueue(Enqueue("a", b"A"), Enqueue("b", b"B", head_start=10)),
        {
            "main": {"b": NOW + 42, "a": NOW + 51}, "messages": {"a": "A", "b": "B"}, **TOKEN,
            "stats": {"total_messages": 2}, "clock": NOW + 52, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue with a time", "later than what is there",
        USED | BODY | {"delayed": {"a": NOW + SECOND}},
        enqueue(Enqueue("b", b"B", due=f"+{2 * SECOND}")),
        {
            "delayed": {"a": NOW + SECOND, "b": NOW + 2 * SECOND}, "messages": {"a": "A", "b": "B"},
            "stats": {"total_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue with a time", "with a head start, which waits in meta",
        USED,
        enqueue(Enqueue("a", b"A", head_start=10, due=f"{NOW + SECOND}")),
        {
            "delayed": {"a": NOW + SECOND}, **BODY, "meta": {"a": f"score={NOW + SECOND - 10}"}, **TOKEN,
            "stats": {"total_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue with a time", "that expires, with a head start",
        USED,
        enqueue(Enqueue("a", b"A", head_start=10, due=f"+{SECOND}", expires=f"+{9 * SECOND}")),
        {
            "delayed": {"a": NOW + SECOND}, **BODY, "meta": {"a": f"score={NOW + SECOND - 10} expires={NOW + 9 * SECOND}"},
            **TOKEN, "stats": {"total_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "", "of what is there already",
        LEASED,
        enqueue(Enqueue("a", b"other")),
        {"calls": {"c": "1\na"}},
    ),
    row(
        "claim", "due; lease", "a delayed message goes to the place of its due time, and on to a worker",
        USED | BODY | {"delayed": {"a": NOW}},
        claim(),
        {"delayed": GONE, "processing": {"a": NOW + LEASE}, "leases": {"a": f"{NOW} {NOW} v"}, "calls": {"c": f"1\n{NOW}\na"}},
    ),
    row(
        "claim", "due", "a delayed message with a head start goes to the place that it bought",
        USED | BODY | {"delayed": {"a": NOW}, "meta": {"a": f"score={NOW - 10}"}},
        claim(limit=0),
        {"delayed": GONE, "main": {"a": NOW - 10}, **TOKEN, "calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "due", "a retry goes to the place that it had",
        USED | BODY | {"retry": {"a": NOW}, "meta": {"a": "attempt=2 score=5 reason=failed text=no"}},
        claim(limit=0),
        {"retry": GONE, "main": {"a": 5}, **TOKEN, "calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "due", "what is due a microsecond later stays",
        USED | BODY | {"delayed": {"a": NOW + 1}},
        claim(),
        {"calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "lease", "the first two of three",
        USED | {"main": {"a": 1, "b": 2, "c": 3}, "messages": {"a": "A", "b": "B", "c": "C"}},
        claim(limit=2),
        {
            "main": {"c": 3}, "processing": {"a": NOW + LEASE, "b": NOW + LEASE},
            "leases": {"a": f"{NOW} 1 v", "b": f"{NOW} 2 v"}, **TOKEN, "calls": {"c": f"1\n{NOW}\na\nb"},
        },
    ),
    row(
        "claim", "lease", "one that was taken back from another worker: the old record goes",
        TAKEN_BACK,
        claim(),
        {"main": GONE, "processing": {"a": NOW + LEASE}, "leases": {"a": f"{NOW} 5 v"}, "calls": {"c": f"1\n{NOW}\na"}},
    ),
    row(
        "claim", "expired", "a waiting message whose time is over",
        USED | BODY | {"main": {"a": 5}, "meta": {"a": f"expires={NOW}"}},
        claim(),
        {"main": GONE, "messages": GONE, "meta": GONE, "stats": {"expired": 1}, "calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "lease", "one that expires a microsecond later",
        USED | BODY | {"main": {"a": 5}, "meta": {"a": f"expires={NOW + 1}"}},
        claim(),
        {"main": GONE, "processing": {"a": NOW + LEASE}, "leases": {"a": f"{NOW} 5 v"}, "calls": {"c": f"1\n{NOW}\na"}},
    ),
    row(
        "claim", "lease expired", "back to its place, the record marked",
        EXPIRED,
        claim(limit=0),
        {
            "processing": GONE, "main": {"a": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": "crashes=1 score=5"},
            "stats": {"crashes": 1}, **TOKEN, "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "lease expired", "not in a time of grace",
        EXPIRED | {"config": {"layout": 1, "lease": LEASE, "grace_until": NOW + 1}},
        claim(),
        {"calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "lease expired", "not after a gap: it begins a time of grace",
        EXPIRED | {"clock": NOW - LEASE},
        claim(),
        {"config": {"layout": 1, "lease": LEASE, "grace_until": NOW + LEASE}, "calls": {"c": f"1\n{NOW}"}},
    ),
    row(
        "claim", "lease expired too often", "a dead letter without a lease",
        EXPIRED | {"meta": {"a": "crashes=2 score=5"}},
        claim(),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": f"crashes=3 score=5 {CRASHED}"},
            "stats": {"crashes": 1, "dlq_messages": 1}, "calls": {"c": f"1\n{NOW}\n \na"},
        },
    ),
    row(
        "claim", "lease expired too often", "of one that ran apart: twice as often",
        EXPIRED | {"meta": {"a": "crashes=5 score=5"}},
        claim(apart=1),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"crashes=6 score=5 {CRASHED.replace('3 times', '6 times')}"},
            "stats": {"crashes": 1, "dlq_messages": 1}, "calls": {"c": f"1\n{NOW}\n \na"},
        },
    ),
    row(
        "claim", "lease of a cancelled one expired", "it does not run again",
        CANCELLED | {"processing": {"a": NOW}, "meta": {"a": "attempt=2 score=5 reason=failed text=no"}},
        claim(),
        {
            "processing": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
            "stats": {"crashes": 1, "cancelled": 1}, "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "has to run apart, and there is no room", "it waits without a lease; its last holder may still acknowledge",
        SUSPECTED, claim(apart=0),
        {
            "main": GONE, "retry": {"a": NOW + 510_000}, "stats": {"parked": 1}, "calls": {"c": f"1\n{NOW}"},
            "config": {"layout": 1, "lease": LEASE},
        },
    ),
    row(
        "claim", "body missing", "a dead letter that says what is missing",
        USED | {"main": {"a": 5}},
        claim(),
        {
            "main": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"died={NOW} reason=body_missing text=the message has no body in q:messages"},
            "stats": {"dlq_messages": 1}, "calls": {"c": f"1\n{NOW}\n \na"},
        },
    ),
    row(
        "settle", "ack", "all that is known of the message goes",
        LEASED | {"meta": {"a": "attempt=2 score=5 reason=failed text=no"}},
        settle("ack"),
        {
            "processing": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
            "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "late ack of the last holder", "the copy that was put aside is withdrawn",
        {key: content for key, content in SUSPECTED.items() if key != "main"} | {"retry": {"a": NOW + 9}},
        settle("ack"),
        {
            "retry": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
            "stats": {"processed_requests": 1, "late_acks": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "late ack of the last holder", "the copy is withdrawn",
        TAKEN_BACK,
        settle("ack"),
        {
            "main": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
            "stats": {"processed_requests": 1, "late_acks": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "retry", "a second attempt",
        LEASED,
        settle("retry", SECOND, "failed", "no"),
        {
            "processing": GONE, "leases": GONE, "retry": {"a": NOW + SECOND}, **TOKEN,
            "meta": {"a": "attempt=2 score=5 reason=failed text=no"}, "stats": {"retry_count": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "park", "a second time",
        LEASED | {"meta": {"a": "parks=1 score=5 reason=unknown_task text="}},
        settle("park", SECOND, "unknown_task"),
        {
            "processing": GONE, "leases": GONE, "retry": {"a": NOW + SECOND}, **TOKEN,
            "meta": {"a": "parks=2 score=5 reason=unknown_task text="}, "stats": {"parked": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "crash", "its process died, not its worker",
        LEASED,
        settle("crash", SECOND, "crashed"),
        {
            "processing": GONE, "leases": GONE, "retry": {"a": NOW + SECOND}, **TOKEN,
            "meta": {"a": "crashes=1 score=5 reason=crashed text="}, "stats": {"crashes": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "cancel", "gone, unfinished, as somebody wanted",
        LEASED,
        settle("cancel"),
        {"processing": GONE, "leases": GONE, "messages": GONE, "stats": {"cancelled": 1}, "calls": {"c": "1"}},
    ),
    *(
        row(
            "settle", "cancel", f"by {op}, for it was cancelled while it ran",
            CANCELLED | {"meta": {"a": "crashes=1 score=5"}},
            settle(op, SECOND, "failed"),
            {
                "processing": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
                "stats": {"cancelled": 1}, "calls": {"c": "1"},
            },
        )
        for op in ("retry", "park", "crash", "release")
    ),
    row(
        "settle", "ack", "it was done before it could be stopped",
        CANCELLED,
        settle("ack"),
        {"processing": GONE, "leases": GONE, "messages": GONE, "stats": {"processed_requests": 1}, "calls": {"c": "1"}},
    ),
    row(
        "settle", "dead-letter", "cancelled while it ran, and failed for good: its error is kept",
        CANCELLED,
        settle("dead", reason="exhausted", text="no"),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": f"score=5 died={NOW} reason=exhausted text=no"},
            "stats": {"dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "release", "as if nothing had been",
        LEASED,
        settle("release"),
        {"processing": GONE, "leases": GONE, "main": {"a": 5}, **TOKEN, "stats": {"released": 1}, "calls": {"c": "1"}},
    ),
    row(
        "settle", "dead-letter", "kept with its error",
        LEASED,
        settle("dead", reason="exhausted", text="ValueError: no"),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"score=5 died={NOW} reason=exhausted text=ValueError: no"},
            "stats": {"dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "dead-letter", "its process died once too often: that crash counts as well",
        LEASED | {"meta": {"a": "crashes=2 score=5"}},
        settle("dead", reason="crashed", text="killed"),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"crashes=3 score=5 died={NOW} reason=crashed text=killed"},
            "stats": {"crashes": 1, "dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "", "of another's lease",
        LEASED,
        settle("dead", fence=6),
        {"stats": {"stale": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "settle", "ack", "with a result, which is kept",
        LEASED,
        settle("result", 60 * SECOND, text="R"),
        {
            "processing": GONE, "leases": GONE, "messages": GONE, "results": {"a": "R"},
            "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "remove", "cancel", "a waiting one that was taken back: its last holder has nothing to acknowledge any more",
        TAKEN_BACK,
        remove("waiting", "delayed", "retry"),
        {"main": GONE, "messages": GONE, "leases": GONE, "meta": GONE, "stats": {"cancelled": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "remove", "cancel", "a delayed one",
        USED | BODY | {"delayed": {"a": NOW + 1}, "meta": {"a": "score=5"}},
        remove("waiting", "delayed", "retry"),
        {"delayed": GONE, "messages": GONE, "meta": GONE, "stats": {"cancelled": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "remove", "cancel", "one that waits for its next attempt",
        USED | BODY | {"retry": {"a": NOW + 1}, "meta": {"a": "attempt=2 score=5 reason=failed text=no"}},
        remove("waiting", "delayed", "retry"),
        {"retry": GONE, "messages": GONE, "meta": GONE, "stats": {"cancelled": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "remove", "drop", "a dead letter",
        DEAD,
        remove("dead", counter="dropped"),
        {"dlq": GONE, "messages": GONE, "meta": GONE, "stats": {"dropped": 1}, "calls": {"c": "1\na"}},
    ),
    row("remove", "", "not what a worker holds", LEASED, remove("waiting", "delayed", "retry", "dead"), {"calls": {"c": "1"}}),
    row("remove", "", "not from another state than was said", DEAD, remove("waiting"), {"calls": {"c": "1"}}),
    row(
        "replay", "replay", "to the place that it had, with all attempts anew",
        DEAD,
        commands.replay(KEYS, ["a", "a", "b"]),
        {"dlq": GONE, "meta": GONE, "main": {"a": 5}, **TOKEN, "stats": {"replayed": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "replay", "", "not without a body",
        DEAD | {"messages": {"b": "B"}},
        commands.replay(KEYS, ["a"]),
        {"calls": {"c": "1"}},
    ),
    row(
        "settle", "limited", "a platform refused: no attempt is spent, the gate is paused for longer than the message waits for",
        LEASED,
        commands.settle(KEYS, [commands.limited("a", 7, gate="bot", pause=SECOND, jitter=5, text="429")]),
        {
            "processing": GONE, "leases": GONE, "retry": {"a": NOW + SECOND + 5}, **TOKEN, "pauses": {"bot": NOW + SECOND},
            "meta": {"a": "score=5 reason=limited text=429"}, "stats": {"limited": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "limited", "it keeps its lane and gives its slot back; a gate that is paused for longer stays so",
        FOLLOWED | {"pauses": {"bot": NOW + 9 * SECOND}},
        commands.settle(KEYS, [commands.limited("a", 7, gate="bot", pause=SECOND, jitter=0)]),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "retry": {"a": NOW + SECOND}, **TOKEN,
            "meta": {"a": "score=5 reason=limited text="}, "stats": {"limited": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue", "the first of a lane, and another of it, in a queue that had no gates",
        USED,
        enqueue(Enqueue("a", b"A", descriptor="0 C @1", definitions=RULES), Enqueue("b", b"B", descriptor="0 C @1")),
        {
            **GATED, "main": {"a": NOW, "b": NOW + 1}, "messages": {"a": "A", "b": "B"}, "clock": NOW + 1,
            "needs": {"a": "0 C @1", "b": "0 C @1"}, "run": {"~@1": NOW}, "flow": {"@1": {"a": NOW, "b": NOW + 1}},
            "limits": RULES | {"llm": 1}, **TOKEN, "stats": {"total_messages": 2}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue", "behind one of its lane that runs: nobody is woken",
        GATED_LEASE,
        enqueue(Enqueue("b", b"B", descriptor="0 C @1")),
        {
            "main": {"b": NOW}, "messages": {"a": "A", "b": "B"}, "needs": {"a": LINE, "b": "0 C @1"}, "flow": {"@1": {"b": NOW}},
            "stats": {"total_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "", "not into a lane that is full",
        FOLLOWED,
        enqueue(Enqueue("c", b"C", descriptor="0 C @1", lane_cap=2)),
        {"calls": {"c": "1\nc="}},
    ),
    row(
        "enqueue", "enqueue", "with a dedupe key",
        USED,
        enqueue(Enqueue("a", b"A", dedupe=Dedupe("k", "ignore", SECOND))),
        {
            "main": {"a": NOW}, **BODY, "meta": {"a": "dedupe=k"}, "dedupe": {"k": f"a {NOW + SECOND}"}, **TOKEN,
            "stats": {"total_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "", "not when another stands for it, which takes its body",
        USED | BODY | {"main": {"a": 5}, "meta": {"a": "dedupe=k"}, "dedupe": {"k": "a 0"}},
        enqueue(Enqueue("b", b"B", dedupe=Dedupe("k", "replace"))),
        {"messages": {"a": "B"}, "stats": {"total_messages": 0}, "calls": {"c": "1\nb=a"}},
    ),
    row(
        "claim", "lease", "a message with a lane, a rate and a slot takes all three",
        USED | GATED | BODY | {
            "main": {"a": 5}, "needs": {"a": LINE}, "run": {"~@1": 5}, "flow": {"@1": {"a": 5}}, "limits": RULES,
        },
        claim(),
        {
            "main": GONE, "run": GONE, "flow": GONE, "processing": {"a": NOW + LEASE}, "leases": {"a": f"{NOW} 5 v"},
            "lanes": {"@1": "a"}, "slots": {"llm": 1}, "tat": {"bot": NOW + SECOND}, "limits": RULES | {"llm": 1},
            "calls": {"c": f"1\n{NOW}\na"},
        },
    ),
    row(
        "claim", "", "what a limit refuses waits at its gate, and nothing is taken, also no slot",
        USED | GATED | BODY | {
            "main": {"a": 5}, "needs": {"a": LINE}, "run": {"~@1": 5}, "flow": {"@1": {"a": 5}}, "limits": RULES | {"llm": 1},
            "tat": {"bot": NOW + SECOND},
        },
        claim(),
        {
            "run": GONE, "blocked": {"@1": "bot"}, "waiting": {"bot": {"@1": 5}}, "gates": {"bot": NOW + SECOND},
            "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "lease expired", "it gives its slot back, keeps its lane, and is tried at its place",
        FOLLOWED | {"processing": {"a": NOW}},
        claim(limit=0),
        {
            "processing": GONE, "slots": GONE, "main": {"a": 5, "b": 9}, "run": {"~@1": 5}, "leases": {"a": "x7 5 w"},
            "meta": {"a": "crashes=1 score=5"}, "stats": {"crashes": 1}, **TOKEN, "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "has to run apart, and there is no room", "it keeps its lane, and holds no slot",
        {key: content for key, content in FOLLOWED.items() if key not in ("processing", "slots")} | {
            "main": {"a": 5, "b": 9}, "run": {"~@1": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": "crashes=2 score=5"},
        },
        claim(apart=0),
        {
            "main": {"b": 9}, "run": GONE, "retry": {"a": NOW + 510_000}, "stats": {"parked": 1}, "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "due", "a gate: who waits there first is let through",
        USED | GATED | BODY | {
            "main": {"a": 5}, "needs": {"a": LINE}, "flow": {"@1": {"a": 5}}, "limits": RULES | {"llm": 1},
            "blocked": {"@1": "bot"}, "waiting": {"bot": {"@1": 5}}, "gates": {"bot": NOW}, "tat": {"bot": NOW},
        },
        claim(),
        {
            "main": GONE, "flow": GONE, "blocked": GONE, "waiting": GONE, "gates": GONE, "processing": {"a": NOW + LEASE},
            "leases": {"a": f"{NOW} 5 v"}, "lanes": {"@1": "a"}, "slots": {"llm": 1}, "tat": {"bot": NOW + SECOND},
            "calls": {"c": f"1\n{NOW}\na"},
        },
    ),
    row(
        "settle", "ack", "the next of its lane may run, with the place of now: lanes take turns",
        FOLLOWED,
        settle("ack"),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "lanes": GONE, "messages": {"b": "B"}, "needs": {"b": "0 C @1"},
            "run": {"~@1": NOW}, **TOKEN, "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "ack", "the last message with gates: the queue is a plain one again",
        GATED_LEASE,
        settle("ack"),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "lanes": GONE, "messages": GONE, "needs": GONE,
            "config": {"layout": 1, "lease": LEASE}, "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "ack", "it held a slot that another waits for: that one is tried",
        GATED_LEASE | {
            "main": {"b": 9}, "messages": {"a": "A", "b": "B"}, "needs": {"a": LINE, "b": "0 F llm Sllm,1"},
            "flow": {"llm": {"b": 9}}, "blocked": {"llm": "llm"}, "waiting": {"llm": {"llm": 9}},
        },
        settle("ack"),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "lanes": GONE, "messages": {"b": "B"},
            "needs": {"b": "0 F llm Sllm,1"}, "run": {"!llm": 9}, **TOKEN, "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "ack", "it stood for a dedupe key, whose window is over",
        LEASED | {"meta": {"a": "dedupe=k"}, "dedupe": {"k": "a 0"}},
        settle("ack"),
        {
            "processing": GONE, "leases": GONE, "messages": GONE, "meta": GONE, "dedupe": GONE,
            "stats": {"processed_requests": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "retry", "it keeps its lane and gives its slot back",
        FOLLOWED,
        settle("retry", SECOND, "failed", "no"),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "retry": {"a": NOW + SECOND}, **TOKEN,
            "meta": {"a": "attempt=2 score=5 reason=failed text=no"}, "stats": {"retry_count": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "dead-letter", "its lane goes on",
        FOLLOWED,
        settle("dead", reason="exhausted", text="no"),
        {
            "processing": GONE, "leases": GONE, "slots": GONE, "lanes": GONE, "dlq": {"a": NOW}, "run": {"~@1": NOW}, **TOKEN,
            "meta": {"a": f"score=5 died={NOW} reason=exhausted text=no"}, "stats": {"dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "dead-letter", "its lane waits for an operator",
        FOLLOWED | {"needs": {"a": "0 H @1", "b": "0 H @1"}, "slots": {"llm": 1}},
        settle("dead", reason="exhausted", text="no"),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"score=5 died={NOW} reason=exhausted text=no"}, "stats": {"dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "remove", "drop", "a dead letter that its lane waited for",
        DEAD | GATED | {
            "main": {"b": 9}, "messages": {"a": "A", "b": "B"}, "needs": {"a": "0 H @1", "b": "0 H @1"}, "lanes": {"@1": "a"},
            "flow": {"@1": {"b": 9}},
        },
        remove("dead", counter="dropped"),
        {
            "dlq": GONE, "messages": {"b": "B"}, "meta": GONE, "needs": {"b": "0 H @1"}, "lanes": GONE,
            "run": {"~@1": NOW}, **TOKEN, "stats": {"dropped": 1}, "calls": {"c": "1\na"},
        },
    ),
    row(
        "remove", "cancel", "the first that waits in a lane at a gate: the next is looked at",
        USED | GATED | {
            "main": {"a": 5, "b": 9}, "messages": {"a": "A", "b": "B"}, "needs": {"a": LINE, "b": "0 C @1"},
            "flow": {"@1": {"a": 5, "b": 9}}, "blocked": {"@1": "bot"}, "waiting": {"bot": {"@1": 5}}, "gates": {"bot": NOW + 9},
        },
        remove("waiting"),
        {
            "main": {"b": 9}, "messages": {"b": "B"}, "needs": {"b": "0 C @1"}, "flow": {"@1": {"b": 9}}, "blocked": GONE,
            "waiting": GONE, "gates": GONE, "run": {"~@1": 5}, **TOKEN, "stats": {"cancelled": 1}, "calls": {"c": "1\na"},
        },
    ),
    row(
        "replay", "replay", "a dead letter that its lane waited for is its first again",
        DEAD | GATED | {"needs": {"a": "0 H @1"}, "lanes": {"@1": "a"}},
        commands.replay(KEYS, ["a"]),
        {"dlq": GONE, "meta": GONE, "main": {"a": 5}, "run": {"~@1": 5}, **TOKEN, "stats": {"replayed": 1}, "calls": {"c": "1\na"}},
    ),
    row(
        "replay", "replay", "it stands for its dedupe key again",
        DEAD | {"meta": {"a": "score=5 dedupe=k reason=exhausted text=no"}},
        commands.replay(KEYS, ["a"]),
        {
            "dlq": GONE, "meta": {"a": "dedupe=k"}, "dedupe": {"k": "a 0"}, "main": {"a": 5}, **TOKEN, "stats": {"replayed": 1},
            "calls": {"c": "1\na"},
        },
    ),
    row("pause_gate", "", "for a time", USED, commands.pause_gate(KEYS, "bot", SECOND), {"pauses": {"bot": NOW + SECOND}}),
    row(
        "pause_gate", "", "no more: who waits there is tried",
        USED | GATED | BODY | {
            "main": {"a": 5}, "needs": {"a": LINE}, "flow": {"@1": {"a": 5}}, "blocked": {"@1": "bot"},
            "waiting": {"bot": {"@1": 5}}, "gates": {"bot": NOW + 9}, "pauses": {"bot": NOW + 9},
        },
        commands.pause_gate(KEYS, "bot", 0),
        {"pauses": GONE, "gates": GONE, "run": {"!bot": 5}, **TOKEN},
    ),
    row(
        "set_limit", "", "what was granted by the old rule counts by the new one",
        USED | {"limits": {"bot": "1 1000000 1"}, "tat": {"bot": NOW + SECOND}},
        commands.set_limit(KEYS, "bot", "10 1000000 1"),
        {"limits": {"bot": "1 1000000 1", "=bot": "10 1000000 1"}, "tat": {"bot": NOW + SECOND // 10}, "calls": {"c": "1"}},
    ),
    row(
        "set_limit", "", "of one gate, and none any more",
        USED | {"limits": {"chat": "1 1000000 1", "=chat:1": "9 1000000 1", "=*": 1}},
        commands.set_limit(KEYS, "chat:1", ""),
        {"limits": {"chat": "1 1000000 1"}, "calls": {"c": "1"}},
    ),
    row(
        "kick", "", "what was granted shuts a gate no longer than its rule could",
        USED | {"limits": {"chat": "10 1000000 1"}, "tat": {"chat:1": NOW + 60 * SECOND}},
        commands.kick(KEYS, ["chat:1"]),
        {"tat": {"chat:1": NOW + SECOND // 10}},
    ),
    row("extend", "", "a later deadline", LEASED, extend(fence=7), {"processing": {"a": NOW + LEASE}}),
    row("extend", "", "a later deadline, also of a cancelled one", CANCELLED, extend(fence=7), {"processing": {"a": NOW + LEASE}}),
    row("cancel", "", "what runs is marked", LEASED, cancel(), {"leases": {"a": "7 5 w cancel"}, "calls": {"c": "1\na"}}),
    row("cancel", "", "what is marked stays so", CANCELLED, cancel(), {"calls": {"c": "1\na"}}),
    row("cancel", "", "not what was taken back", TAKEN_BACK, cancel(), {"calls": {"c": "1"}}),
    row(
        "cancel", "", "a worker of that name has cancelled nothing",
        LEASED | {"leases": {"a": "7 5 cancel"}}, cancel(), {"leases": {"a": "7 5 cancel cancel"}, "calls": {"c": "1\na"}},
    ),
    row("extend", "", "of another's lease", LEASED, extend(fence=6), {}),
    row("wake", "", "the hint", USED, commands.wake(KEYS), {**TOKEN, "clock": NOW - 1}),
    row("inspect", "", "nothing changes", LEASED, commands.inspect(KEYS), {"clock": NOW - 1}),
    row("seek", "", "nothing changes", LEASED, commands.seek(KEYS, "A"), {"clock": NOW - 1}),
    row("find", "", "nothing changes", LEASED, commands.find(KEYS, "a"), {"clock": NOW - 1}),
    row("browse", "", "nothing changes", DEAD, commands.browse(KEYS, "dead", offset=0, limit=9), {"clock": NOW - 1}),
    row("outcome", "", "nothing changes", DEAD, commands.outcome(KEYS, "a"), {"clock": NOW - 1}),
    row(
        "enqueue", "enqueue", "a message that stands back",
        {},
        enqueue(Enqueue("a", b"A", head_start=-10)),
        {
            "config": {"layout": 1}, **BODY, "main": {"a": NOW + 10}, "stats": {"total_messages": 1}, **TOKEN,
            "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue", "the queue's own limit on waiting holds for a message that names none, or a later one",
        USED | {"config": {"layout": 1, "lease": LEASE, "rules": rules(message_ttl=7)}},
        enqueue(Enqueue("a", b"A", expires="+9"), Enqueue("b", b"B"), Enqueue("c", b"C", expires="+5")),
        {
            "messages": {"a": "A", "b": "B", "c": "C"}, "main": {"a": NOW, "b": NOW + 1, "c": NOW + 2}, "clock": NOW + 2,
            "meta": {"a": f"expires={NOW + 7}", "b": f"expires={NOW + 7}", "c": f"expires={NOW + 5}"},
            "stats": {"total_messages": 3}, **TOKEN, "calls": {"c": "1"},
        },
    ),
    row(
        "enqueue", "enqueue; too many wait", "the first of the queue goes",
        USED | BODY | {
            "main": {"a": 5}, "meta": {"a": "score=5"}, "config": {"layout": 1, "lease": LEASE, "rules": rules(max_length=1)},
        },
        enqueue(Enqueue("b", b"B")),
        {
            "messages": {"b": "B"}, "main": {"b": NOW}, "meta": GONE, "stats": {"total_messages": 1, "dropped": 1}, **TOKEN,
            "calls": {"c": "1"},
        },
    ),
    row(
        "claim", "expired, to be kept", "a dead letter, in a queue that wants them",
        USED | BODY | {
            "main": {"a": 5}, "meta": {"a": f"expires={NOW}"},
            "config": {"layout": 1, "lease": LEASE, "rules": rules(keep_expired=1)},
        },
        claim(),
        {
            "main": GONE, "dlq": {"a": NOW}, "meta": {"a": f"expires={NOW} died={NOW} reason=expired text=nobody took it in time"},
            "stats": {"dlq_messages": 1}, "calls": {"c": f"1\n{NOW}\n \na"},
        },
    ),
    row(
        "restore", "give back", "free: to its place, the record marked for a late ack",
        LEASED,
        commands.restore(KEYS, [("a", 7)]),
        {
            "processing": GONE, "main": {"a": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": "parks=1 score=5"},
            "stats": {"released": 1}, **TOKEN, "calls": {"c": "1"},
        },
    ),
    row(
        "restore", "give back", "counted",
        LEASED,
        commands.restore(KEYS, [("a", 7)], limit=2),
        {
            "processing": GONE, "main": {"a": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": f"score=5 requeues=1 since={NOW}"},
            "stats": {"requeued": 1}, **TOKEN, "calls": {"c": "1"},
        },
    ),
    row(
        "restore", "give back too often", "a dead letter",
        LEASED | {"meta": {"a": f"score=5 requeues=1 since={NOW - 9}"}},
        commands.restore(KEYS, [("a", 7)], limit=2, age=9),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW},
            "meta": {"a": f"score=5 requeues=2 since={NOW - 9} died={NOW} reason=delivery_limit text=it was requeued 2 times"},
            "stats": {"requeued": 1, "dlq_messages": 1}, "calls": {"c": "1\n \na"},
        },
    ),
    row(
        "restore", "give back", "too often within a short time: it waits on",
        LEASED | {"meta": {"a": f"crashes=5 score=5 requeues=9 since={NOW - 9}"}},
        commands.restore(KEYS, [("a", 7)], limit=2, age=10),
        {
            "processing": GONE, "main": {"a": 5}, "leases": {"a": "x7 5 w"},
            "meta": {"a": f"crashes=5 score=5 requeues=10 since={NOW - 9}"},
            "stats": {"requeued": 1}, **TOKEN, "calls": {"c": "1"},
        },
    ),
    *(
        row(
            "restore", "give back a cancelled one", f"it does not run again, {how}",
            CANCELLED | {"meta": {"a": "crashes=1 score=5"}},
            commands.restore(KEYS, [("a", 7)], limit=limit),
            {
                "processing": GONE, "leases": GONE, "messages": GONE, "meta": GONE,
                "stats": {"cancelled": 1}, "calls": {"c": "1"},
            },
        )
        for how, limit in (("free", 0), ("counted", 2))
    ),
    row(
        "restore", "", "stale: another fence, and twice",
        LEASED,
        commands.restore(KEYS, [("a", 6), ("a", 7), ("a", 7)]),
        {
            "processing": GONE, "main": {"a": 5}, "leases": {"a": "x7 5 w"}, "meta": {"a": "parks=1 score=5"},
            "stats": {"released": 1, "stale": 2}, **TOKEN, "calls": {"c": "1\na\na"},
        },
    ),
    row(
        "declare", "", "a queue with rules",
        {},
        commands.declare(KEYS, message_ttl=5, max_length=9, keep_expired=True),
        {"config": {"layout": 1, "rules": rules(message_ttl=5, max_length=9, keep_expired=1)}},
    ),
    row(
        "declare", "", "rules that are no more",
        USED | {"config": {"layout": 1, "lease": LEASE, "rules": rules(message_ttl=5)}},
        commands.declare(KEYS),
        {"config": {"layout": 1, "lease": LEASE}},
    ),
    row(
        "declare", "", "a queue that is new",
        {},
        commands.declare(KEYS, message_ttl=5, if_new=True),
        {"config": {"layout": 1, "rules": rules(message_ttl=5)}},
    ),
    row("declare", "", "a queue that is there, if it is new", USED, commands.declare(KEYS, message_ttl=5, if_new=True), {
        "clock": NOW - 1,
    }),
    row("delete", "", "with all in it", LEASED, commands.delete(KEYS), {
        **dict.fromkeys(LEASED, GONE), "clock": GONE, "calls": {"c": "1\n0\n0"},
    }),
    row("delete", "", "not while something is in it", LEASED, commands.delete(KEYS, if_empty=True), {
        "clock": NOW - 1, "calls": {"c": "1\n-1\n0"},
    }),
]  # fmt: skip


def run(client: redis.Redis, command: Command[Any]) -> Any:
    source = SCRIPTS[command.script].source
    identity = ("c", 1) if command.numbered else ()
    return client.execute_command("EVAL", source, len(KEYS.fixed), *KEYS.fixed, KEYS.prefix, *identity, *command.args)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.script}: {row.name}")
def test_a_call_changes_exactly_what_its_row_says(database: redis.Redis, row: Row) -> None:
    load(database, KEYS, row.before)
    set_clock(database, KEYS.prefix, NOW)
    run(database, row.command)
    assert dump(database, KEYS) == row.expected


def test_every_transition_has_a_row() -> None:
    shown = {(row.script, event) for row in ROWS for event in row.events}
    assert shown == {(arrow.script, arrow.event) for arrow in TRANSITIONS}
