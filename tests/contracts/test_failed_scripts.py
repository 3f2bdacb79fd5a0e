"""A script that fails changes nothing (I26): whatever it finds in its keys or gets as arguments."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Settlement
from redisq.broker.connector import Connector
from redisq.broker.faults import classify
from redisq.broker.keys import FIXED, GATES
from redisq.broker.scripts import QUEUE_SCRIPTS
from redisq.errors import ProtocolError, QueueConflict
from tests.clock import scripts, set_clock
from tests.contracts.calls import CALLS, GATED, GATED_CALLS, KEYS, LEASED, NOW, raw_call
from tests.keyspace import everything, load

SCRIPTS = scripts()

#: Scripts that do not look at a key, and so work whatever it is.
#: Renewing, looking and waking go on when only the counters are spoilt; `never` is only ever deleted.
BLIND = {
    ("extend", "stats"),
    ("find", "stats"),
    ("seek", "stats"),
    ("wake", "stats"),
    ("pause", "stats"),
    ("browse", "stats"),
    ("outcome", "stats"),
    ("cancel", "stats"),
    ("pause_gate", "stats"),
    ("set_limit", "stats"),
    ("kick", "stats"),
    ("join", "stats"),
    ("declare", "stats"),
    ("delete", "stats"),
    ("repair", "stats"),
    # It leaves what it cannot read to a claim.
    *(("look", key.name) for key in FIXED),
    *((name, "never") for name in QUEUE_SCRIPTS),
}

#: Scripts that refuse what they cannot read; `look` calls such a queue due, and a claim says what is wrong.
CHECKING = [name for name in QUEUE_SCRIPTS if name != "look"]
NUMBERED = [name for name, command in CALLS.items() if command.numbered]
NO_NUMBERS = ("", "x", "-1", "1.5", "inf")


@pytest.fixture
def connector(database: redis.Redis) -> Connector:
    load(database, KEYS, LEASED)
    set_clock(database, KEYS.prefix, NOW)
    return Connector(database, SCRIPTS)


def _wrong_type(key_type: str, client: redis.Redis, name: str) -> None:
    client.delete(name)
    if key_type == "string":
        client.rpush(name, "a list")
    else:
        client.set(name, "a string")


@pytest.mark.parametrize(
    ("script", "key"),
    [(script, key) for script in QUEUE_SCRIPTS for key in FIXED if (script, key.name) not in BLIND],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_key_of_another_type_is_a_conflict(database: redis.Redis, connector: Connector, script: str, key: Any) -> None:
    _wrong_type(key.type, database, KEYS.named(key.name))
    before = everything(database)
    with pytest.raises(QueueConflict):
        connector.execute(CALLS[script])
    assert everything(database) == before


@pytest.mark.parametrize("key", GATES, ids=lambda key: key.name)
@pytest.mark.parametrize("script", GATED_CALLS)
def test_a_key_of_gates_of_another_type_is_a_conflict(database: redis.Redis, script: str, key: Any) -> None:
    load(database, KEYS, GATED)
    set_clock(database, KEYS.prefix, NOW)
    _wrong_type(key.type, database, KEYS.named(key.name))
    before = everything(database)
    with pytest.raises(QueueConflict):
        Connector(database, SCRIPTS).execute(GATED_CALLS[script])
    assert everything(database) == before
    database.flushdb()


@pytest.mark.parametrize("key", ["needs", "limits", "lanes", "slots", "tat", "pauses"])
@pytest.mark.parametrize("script", GATED_CALLS)
def test_what_cannot_be_read_in_a_key_of_gates_stops_nobody(database: redis.Redis, script: str, key: str) -> None:
    load(database, KEYS, GATED)
    set_clock(database, KEYS.prefix, NOW)
    name = KEYS.named(key)
    if key in ("tat", "pauses"):
        database.zadd(name, {"bot": "inf", "llm": "-inf"})
    else:
        database.hset(name, mapping=dict.fromkeys(database.hkeys(name), "hello"))
    Connector(database, SCRIPTS).execute(GATED_CALLS[script])
    database.flushdb()


def test_every_script_is_called_here() -> None:
    assert set(CALLS) == set(QUEUE_SCRIPTS)


@pytest.mark.parametrize(("script", "key"), sorted(pair for pair in BLIND if pair[1] != "never"))
def test_spoilt_counters_stop_nobody_who_does_not_count(database: redis.Redis, connector: Connector, script: str, key: str) -> None:
    _wrong_type("hash", database, KEYS.named(key))
    connector.execute(CALLS[script])


@pytest.mark.parametrize("script", NUMBERED)
def test_a_call_ledger_of_another_type_is_a_conflict(database: redis.Redis, script: str) -> None:
    database.rpush(KEYS.call("c"), "a list")
    database.expire(KEYS.call("c"), 600)
    _refused(database, script, CALLS[script].args, QueueConflict)


@pytest.mark.parametrize("script", NUMBERED)
@pytest.mark.parametrize("garbage", ["", "x", "-1", "\n"])
def test_a_call_ledger_that_holds_no_call_is_a_conflict(database: redis.Redis, script: str, garbage: str) -> None:
    database.set(KEYS.call("c"), garbage, ex=600)
    _refused(database, script, CALLS[script].args, QueueConflict)


@pytest.mark.parametrize("script", CHECKING)
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_clock_that_is_no_number_is_a_conflict(database: redis.Redis, connector: Connector, script: str, value: str) -> None:
    database.set(KEYS.named("clock"), value)
    before = everything(database)
    with pytest.raises(QueueConflict, match="q:clock does not hold a number"):
        connector.execute(CALLS[script])
    assert everything(database) == before


@pytest.mark.parametrize("script", CHECKING)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("grace_until", "lease") for value in ("x", "nan")),
        *(("rules", value) for value in ("", "x", "ttl=1", "ttl=x message_ttl=0 max_length=0 keep_expired=0")),
    ],
)
def test_a_setting_that_is_no_number_is_a_conflict(
    database: redis.Redis, connector: Connector, script: str, field: str, value: str
) -> None:
    database.hset(KEYS.named("config"), field, value)
    before = everything(database)
    with pytest.raises(QueueConflict, match=r"not a number|not numbers"):
        connector.execute(CALLS[script])
    assert everything(database) == before


@pytest.mark.parametrize("value", ["x", "nan"])
def test_a_count_of_what_was_dropped_that_is_no_number_is_a_conflict(
    database: redis.Redis, connector: Connector, value: str
) -> None:
    connector.execute(commands.declare(KEYS, max_length=1))
    database.hset(KEYS.named("stats"), "dropped", value)
    before = everything(database)
    with pytest.raises(QueueConflict, match="field dropped of q:stats is not a number"):
        connector.execute(CALLS["enqueue"])
    assert everything(database) == before


COUNTERS = {
    "enqueue": ("total_messages",),
    "claim": ("crashes", "dlq_messages", "expired", "cancelled", "parked"),
    "remove": ("cancelled",),
    "replay": ("replayed",),
    "restore": ("released", "requeued", "dlq_messages", "cancelled", "stale"),
    "settle": (
        "processed_requests", "retry_count", "dlq_messages", "released", "parked", "limited", "crashes", "cancelled",
        "stale", "late_acks", "run_time_us",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "field"), [(script, field) for script, fields in COUNTERS.items() for field in fields])
@pytest.mark.parametrize("value", ["x", "nan"])
def test_a_counter_that_is_no_number_is_a_conflict(
    database: redis.Redis, connector: Connector, script: str, field: str, value: str
) -> None:
    database.hset(KEYS.named("stats"), field, value)
    before = everything(database)
    with pytest.raises(QueueConflict, match=f"field {field} of q:stats is not a number|hash value is not an integer.*; a counter"):
        connector.execute(CALLS[script])
    assert everything(database) == before


def _refused(database: redis.Redis, script: str, args: tuple[Any, ...], error: type[Exception], number: Any = 1) -> None:
    load(database, KEYS, LEASED)
    set_clock(database, KEYS.prefix, NOW)
    before = everything(database)
    with pytest.raises(redis.ResponseError) as refused:
        raw_call(database, SCRIPTS[script], args, number)
    assert classify(refused.value).error is error
    assert everything(database) == before


#: What is no whole number >= 0 that a score holds exactly.
BAD = ("", "x", "-1", "0.5", "nan", "inf", str(2**53))

BAD_ARGUMENTS = {
    "enqueue": [
        (), ("a",), ("a", "A"), ("b", "B", "", "c"), ("b", "B", "10"), ("b", "B", "x 0"),
        ("b", "B", "0 x"),
        ("b", "B", f"-{2**52 + 1} 0"), ("b", "B", "--1 0"), ("b", "B", "0 -1"), ("b", "B", "0 +-1"),
        ("b", "B", "0.5 0"), ("b", "B", "0 0 x"), ("b", "B", f"-{2**52} {2**53 - 1}"),
        ("b", "B", "0 0 0 0"),
        ("b", "B", "0 0|"), ("b", "B", "|0 C @1|1|"), ("b", "B", "|0 X @1|||"), ("b", "B", "|C @1|||"),
        ("b", "B", "|0 C @1 Xbot,1|||"),
        ("b", "B", "|0 C @1 Rbot,x|||"), ("b", "B", "|0 C @1|x||"), ("b", "B", "||1|ignore x k|"), ("b", "B", "||1|ignore 1|"),
        ("b", "B", "||1|raise 1 k|"), ("~b", "B", "|0 C @1|||"), ("b", "B", "x|0 C @1|||"),
        ("b", "B", f"{2**53} 0"), ("b", "B", f"0 {2**53}"), ("b", "B", f"0 +{2**53 - 1}"), ("c", "C", "", "b", "B", "bad"),
    ],
    "claim": [
        (), ("w",), ("w", 1), ("w", 1, 1), *(
            (*wrong, 1, 2)
            for wrong in [
                ("", 1, 1, 1), ("a b", 1, 1, 1), ("w", 1001, 1, 1), ("w", 1, 0, 1), ("w", 1, 1, 0), ("w", 1, 2**53 - 1, 1),
                *(("w", bad, 1, 1) for bad in BAD), *(("w", 1, bad, 1) for bad in BAD), *(("w", 1, 1, bad) for bad in BAD),
            ]
        ), ("w", 1, 1, 1), ("w", 1, 1, 1, 1), ("w", 1, 1, 1, 1, 0),
        *(("w", 1, 1, 1, bad, 1) for bad in BAD), *(("w", 1, 1, 1, 1, bad) for bad in BAD),
        *(("w", 1, 1, 1, 1, 1, bad) for bad in BAD), ("w", 1, 1, 1, 1, 1, 0, 1), ("w", 1, 1, 1, 1, 1, 0, 1, 0),
        ("w", 1, 1, 1, 1, 1, 0, 1, 2, ""), *(("w", 1, 1, 1, 1, 1, 0, bad, 0, "") for bad in BAD),
    ],
    "settle": [
        (), (0,), (0, 1), (0, 1, "a"), (0, 1, "a", 7, "retry"), (0, 1001, *("a", 7) * 1001), (0, 2, "a", 7), (0, 0, "a", 7),
        *((bad, 1, "a", 7) for bad in BAD), *((0, bad, "a", 7) for bad in BAD),
        *((0, 0, "retry", "a", 7, bad, "failed", "") for bad in BAD), (0, 0, "retry", "a", 7, 2**53 - 1, "failed", ""),
        (0, 0, "ack", "a", 7, 0, "none", ""), (0, 0, "explode", "a", 7, 0, "none", ""), (0, 0, "", "a", 7, 0, "none", ""),
        *((0, 0, "dead", "a", 7, 0, reason, "") for reason in ("", "Failed", "two words", "x=y", "a\nb", "1")),
        (0, 1, "a", 7, "retry", "b", 8, "bad", "failed", ""),
        *((0, 0, "limited", "a", 7, 1, "limited", text) for text in ("", "bot", "bot x y", "bot -1 y", "a b 1 c")),
    ],
    "extend": [
        (), (0, "a", 7), (1, "a"), (1, *("a", 7) * 1001), (2**53 - 1, "a", 7), *((bad, "a", 7) for bad in BAD),
    ],
    "find": [(), ("a", "b")],
    "seek": [(), ("0",), ("0", ""), ("0", "a", "b"), *((bad, "a") for bad in BAD[:-1])],  # a cursor may be any 64 bits
    "outcome": [(), ("a", "b")],
    "browse": [
        (), ("dead",), ("dead", 0), ("", 0, 1), ("done", 0, 1), ("dead", 0, 0), ("dead", 0, 1001),
        *(("dead", bad, 1) for bad in BAD), *(("dead", 0, bad) for bad in BAD),
    ],
    "remove": [
        (), ("cancelled",), ("released", "waiting", "waiting"), ("cancelled", "", "waiting"), ("cancelled", "processing", "a"),
        ("cancelled", "waiting,nowhere", "waiting"), ("purged", "waiting", *["waiting"] * 1001),
    ],
    "replay": [("dead",) * 1001],
    "cancel": [("a",) * 1001],
    "kick": [("a",) * 1001],
    "join": [(), ("a b",), ("q",), ("g", "h")],
    "pause_gate": [("", 1), ("a b", 1), ("bot", ""), ("bot", "-1"), ("bot", "x"), ("bot", str(2**53))],
    "set_limit": [
        ("nobody", "bot", "1"), ("code", "chat:42", "1"), ("operator", "", "1"), ("operator", "@1", "1"), ("operator", "a b", "1"),
        ("operator", "=bot", "1"), ("operator", "bot", "x"), ("operator", "bot", "1 2"), ("operator", "bot", "1 2 x"),
    ],
    "declare": [
        (), (0, 0, 0, 0), (0, 0, 0, "", 0), (0, 0, 0, 2, 0), (0, 0, 0, 0, ""), (0, 0, 0, 0, 2),
        (2**52, 0, 0, 0, 0), (0, 2**53 - 1, 0, 0, 0),
        *((bad, 0, 0, 0, 0) for bad in BAD), *((0, bad, 0, 0, 0) for bad in BAD), *((0, 0, bad, 0, 0) for bad in BAD),
    ],
    "delete": [(), ("",), (2,), (0,), (2, 0), (0, 1001), *((0, bad) for bad in BAD)],
    "restore": [(), (0, "a"), (0, *("a", 7) * 1001), *((bad, "a", 7) for bad in BAD)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "args"),
    [(script, args) for script, rows in BAD_ARGUMENTS.items() for args in rows],
    ids=lambda value: str(value)[:50],
)
def test_wrong_arguments_are_refused(database: redis.Redis, script: str, args: tuple[Any, ...]) -> None:
    _refused(database, script, args, ProtocolError)


@pytest.mark.parametrize("script", NUMBERED)
@pytest.mark.parametrize("number", BAD)
def test_a_call_number_that_is_no_number_is_refused(database: redis.Redis, script: str, number: str) -> None:
    _refused(database, script, CALLS[script].args, ProtocolError, number)


SPOILT = {
    "meta that holds no numbers": ("meta", "attempt=x crashes=y parks= score=nowhere reason=inf text=no"),
    "meta that is none": ("meta", "hello"),
    "a lease without a place": ("leases", "7 nowhere w"),
    "a lease without a holder": ("leases", "7 5 "),
}


@pytest.mark.parametrize(("key", "record"), SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("op", ["ack", "retry", "park", "release", "dead"])
def test_a_spoilt_record_hurts_nobody(database: redis.Redis, connector: Connector, key: str, record: str, op: str) -> None:
    database.hset(KEYS.named(key), "a", record)
    assert connector.execute(commands.settle(KEYS, [Settlement(op, "a", 7)])) == []
    found = connector.execute(commands.find(KEYS, "a"))
    assert (found is None) == (op == "ack")


@pytest.mark.parametrize(("key", "record"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_record_of_an_expired_lease_hurts_nobody(
    database: redis.Redis, connector: Connector, key: str, record: str
) -> None:
    database.hset(KEYS.named(key), "expired", record)
    claimed = connector.execute(CALLS["claim"])
    assert {delivery.id: delivery.meta.crashes for delivery in claimed.deliveries}["expired"] == 1


def test_a_lease_record_that_is_none_is_nobodys(database: redis.Redis, connector: Connector) -> None:
    database.hset(KEYS.named("leases"), mapping={"a": "hello", "expired": ""})
    assert connector.execute(CALLS["settle"]) == ["a"]
    assert connector.execute(CALLS["extend"]) == {"a": "lost"}
    claimed = connector.execute(CALLS["claim"])
    assert "expired" in [delivery.id for delivery in claimed.deliveries]


@pytest.mark.parametrize("script", ["claim", "find", "browse"])
def test_meta_that_cannot_be_read_counts_as_none(database: redis.Redis, connector: Connector, script: str) -> None:
    database.hset(KEYS.named("meta"), mapping={"waiting": "attempt=x expires=y", "a": "crashes=\xff", "dead": b"\xff=\xff"})
    connector.execute(CALLS[script])


@pytest.mark.parametrize("fence", ["x7", "", "7 ", "7 5", "07", "7.0", "-7", "nan"])
@pytest.mark.parametrize("op", ["retry", "release", "dead", "result"])
def test_what_is_not_exactly_the_fence_is_stale(database: redis.Redis, fence: str, op: str) -> None:
    load(database, KEYS, LEASED | {"leases": {"a": "7 5 w", "waiting": "x7 8 w"}})
    set_clock(database, KEYS.prefix, NOW)
    args = [(op, each, fence, 0, "failed", "") for each in ("a", "waiting")]
    assert raw_call(database, SCRIPTS["settle"], (0, 0, *args[0], *args[1])) == [b"a", b"waiting"]
    assert raw_call(database, SCRIPTS["extend"], (1, "a", fence, "waiting", fence))[::2] == [b"a", b"waiting"]
