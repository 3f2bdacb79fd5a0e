"""Every arrow of `redisq.states.TRANSITIONS`, with all keys of the queue before and after the call.

A row names the arrows that it shows, the state before, the command, and what is different after. In all rows the time
is NOW, a lease takes 30 s, the caller is `c`, and this is its call number 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Command, Enqueue, Settlement
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
CRASHED = "reason=crashed text=the worker died or lost its lease 3 times"
GONE = None


def enqueue(*messages: Enqueue) -> Command[Any]:
    return commands.enqueue(KEYS, messages)


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
            "stats": {"crashes": 1, "dlq_messages": 1}, "calls": {"c": f"1\n{NOW}"},
        },
    ),
    row(
        "claim", "lease expired too often", "of one that ran apart: twice as often",
        EXPIRED | {"meta": {"a": "crashes=5 score=5"}},
        claim(apart=1),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": f"crashes=6 score=5 {CRASHED.replace('3', '6')}"},
            "stats": {"crashes": 1, "dlq_messages": 1}, "calls": {"c": f"1\n{NOW}"},
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
            "main": GONE, "dlq": {"a": NOW}, "meta": {"a": "reason=body_missing text=the message has no body in q:messages"},
            "stats": {"dlq_messages": 1}, "calls": {"c": f"1\n{NOW}"},
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
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": "score=5 reason=exhausted text=no"},
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
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": "score=5 reason=exhausted text=ValueError: no"},
            "stats": {"dlq_messages": 1}, "calls": {"c": "1"},
        },
    ),
    row(
        "settle", "dead-letter", "its process died once too often: that crash counts as well",
        LEASED | {"meta": {"a": "crashes=2 score=5"}},
        settle("dead", reason="crashed", text="killed"),
        {
            "processing": GONE, "leases": GONE, "dlq": {"a": NOW}, "meta": {"a": "crashes=3 score=5 reason=crashed text=killed"},
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
    row("find", "", "nothing changes", LEASED, commands.find(KEYS, "a"), {"clock": NOW - 1}),
    row("browse", "", "nothing changes", DEAD, commands.browse(KEYS, "dead", offset=0, limit=9), {"clock": NOW - 1}),
    row("outcome", "", "nothing changes", DEAD, commands.outcome(KEYS, "a"), {"clock": NOW - 1}),
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
