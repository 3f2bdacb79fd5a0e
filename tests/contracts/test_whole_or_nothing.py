"""A script that fails at any of its commands changed nothing; one that goes on does the whole (I26).

Each call is carried out once on a queue that is well, to learn which keys it comes to. Then once for each of these keys, with
the key of another type, and once for each kind of key with a user who may not use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import redis

from redisq.broker import commands, exchanges
from redisq.broker.commands import Command, Dedupe, Enqueue, Settlement
from redisq.broker.faults import classify
from redisq.broker.keys import FIXED, GATES, GroupKeys
from redisq.broker.scripts import SCRIPT_NAMES
from redisq.errors import AccessDenied, QueueConflict
from tests.clock import clock_key, scripts, set_clock
from tests.contracts.calls import EXCHANGE, KEYS, NOW
from tests.keyspace import everything, load

SCRIPTS = scripts()
LEASE = 30_000_000
GROUP = GroupKeys("g")
OTHER = "other"

#: A queue with a message for each way that a script may take, each with a dedupe key.
STATE: dict[str, Any] = {
    "config": {"layout": 1, "lease": LEASE, "gated": 1},
    "clock": NOW - 1,
    "messages": dict.fromkeys(
        (
            "held", "free", "cancelled", "late", "crashing", "unwanted", "waiting", "second", "behind", "plain", "old", "delayed",
            "retry", "dead",
        ),
        "body",
    ),
    "processing": {"held": NOW + 1, "free": NOW + 1, "cancelled": NOW + 1, "late": NOW, "crashing": NOW, "unwanted": NOW},
    "leases": {
        "held": "7 1 w", "free": "7 2 w", "cancelled": "7 3 w cancel", "late": "7 4 w", "crashing": "7 5 w",
        "unwanted": "7 6 w cancel",
    },
    "main": {"waiting": 8, "second": 9, "behind": 10, "plain": 11, "old": 12, "bodiless": 13},
    "delayed": {"delayed": NOW},
    "retry": {"retry": NOW},
    "dlq": {"dead": 1},
    "needs": {
        "held": "0 C @1 Sllm,1", "second": "0 C @1 Sllm,1", "free": "0 F llm Sllm,1", "cancelled": "0 C @2 Sllm,1",
        "behind": "0 C @2 Rbot,1", "late": "0 F llm Sllm,1", "waiting": "0 F bot Rbot,1", "retry": "0 H @3", "dead": "0 H @4",
        "delayed": "0 C @5 Sllm,1 Rbot,1",
    },
    "run": {"plain": 11, "old": 12, "bodiless": 13},
    "lanes": {"@1": "held", "@2": "cancelled", "@3": "retry", "@4": "dead"},
    "blocked": {"bot": "bot"},
    "gates": {"bot": NOW - 5},
    "slots": {"llm": 4},
    "flow": {"bot": {"waiting": 8}, "@1": {"second": 9}, "@2": {"behind": 10}},
    "waiting": {"bot": {"bot": 8}},
    "stats": {"total_messages": 15},
}  # fmt: skip
_ALL = (*STATE["messages"], "bodiless")
STATE["dedupe"] = {f"k-{ident}": f"{ident} 0" for ident in _ALL}
STATE["meta"] = {ident: f"dedupe=k-{ident}" for ident in _ALL} | {
    "crashing": "crashes=8 dedupe=k-crashing",
    "old": f"expires={NOW - 1} dedupe=k-old",
    "dead": "score=1 dedupe=k-dead reason=failed text=no",
}

LIMITS = {"bot": "1 1000000 1", "llm": "9"}
RULES = {"rules": "ttl=60000 message_ttl=5 max_length=2 keep_expired=1"}
PAIRS = [("held", 7), ("cancelled", 7), ("free", 7)]


def _settle(*settlements: Settlement) -> Command[Any]:
    return commands.settle(KEYS, settlements, run_time=5)


def _enqueue(**options: Any) -> Command[Any]:
    return commands.enqueue(KEYS, [Enqueue("b", b"B", **options), Enqueue("c", b"C", 10, "+10")])


_LANE = {"descriptor": "0 C @1 Rbot,1 Sllm,1", "definitions": {"new": "1"}}
_CLAIM = commands.claim(KEYS, worker="w", limit=9, lease=2 * LEASE, max_crashes=3)

#: What is called -> the call, and fields of the queue's config.
CALLS: dict[str, tuple[Command[Any], Mapping[str, str]]] = {
    "enqueue": (_enqueue(), {}),
    "enqueue to a lane": (_enqueue(lane_cap=9, **_LANE), {}),
    "enqueue to a group": (_enqueue(group=GROUP.prefix, **_LANE), {}),
    **{f"enqueue once, {mode}": (_enqueue(dedupe=Dedupe("k-plain", mode, 5), **_LANE), {}) for mode in ("ignore", "replace")},
    "enqueue once, extend": (_enqueue(dedupe=Dedupe("k-delayed", "extend", 5), due="+50"), {}),
    "enqueue too many": (_enqueue(), RULES),
    "claim": (_CLAIM, {}),
    "claim, keep what expired": (_CLAIM, RULES),
    "extend": (commands.extend(KEYS, [*PAIRS, ("late", 7)], lease=LEASE), {}),
    "wake": (commands.wake(KEYS), {}),
    "look": (commands.look([KEYS]), {}),
    "seek": (commands.seek(KEYS, "od"), {}),
    "pause": (commands.pause(KEYS, True), {}),
    "resume": (commands.pause(KEYS, False), {}),
    "inspect": (commands.inspect(KEYS), {}),
    "find": (commands.find(KEYS, "held"), {}),
    "browse": (commands.browse(KEYS, "dead", offset=0, limit=10), {}),
    "outcome": (commands.outcome(KEYS, "held"), {}),
    "remove": (
        commands.remove(KEYS, ["waiting", "plain", "second", "dead"], counter="dropped", states=["waiting", "dead"]), {},
    ),
    "cancel": (commands.cancel(KEYS, ["held", "free"]), {}),
    "replay": (commands.replay(KEYS, ["dead"]), {}),
    "pause_gate": (commands.pause_gate(KEYS, "bot", 10), {}),
    "resume_gate": (commands.pause_gate(KEYS, "bot", 0), {}),
    "set_limit": (commands.set_limit(KEYS, "bot", "2 1000000 2"), {}),
    "take_limit_away": (commands.set_limit(KEYS, "bot", ""), {}),
    "kick": (commands.kick(KEYS, ["bot", "llm"]), {}),
    "join": (commands.join(KEYS, GROUP), {}),
    "leave": (commands.join(KEYS, None), {}),
    "declare": (commands.declare(KEYS, ttl=60_000, message_ttl=5, max_length=9, keep_expired=True), {}),
    "undeclare": (commands.declare(KEYS, ttl=0, message_ttl=0, max_length=0, keep_expired=False), RULES),
    "delete": (commands.delete(KEYS), {}),
    "delete some": (commands.delete(KEYS, most=3), {}),
    "restore": (commands.restore(KEYS, PAIRS, limit=0), {}),
    "restore as dead": (commands.restore(KEYS, PAIRS, limit=1), {}),
    **{
        f"settle: {op}": (_settle(*(Settlement(op, ident, 7, 10**6, "failed", "x") for ident in ("held", "free", "late"))), {})
        for op in ("ack", "result", "retry", "park", "crash", "release", "dead", "cancel")
    },
    "settle: limited": (_settle(commands.limited("held", 7, gate="bot", pause=10, jitter=1)), {}),
    **{
        f"repair: {what}": (
            commands.repair_page(KEYS, act=True, lease=LEASE, group="", what=what, flows=["@1", "bot"] if what == "flows" else ()),
            {},
        )
        for what in ("flows", "run", "blocked", "lanes", "leases", "retry", "dead", "main", "delayed", "messages", "slots")
    },
    "bind": (exchanges.bind(EXCHANGE, [(b"type:topic", 0), (b"bind:a", 60_000_000)]), {}),
    "broadcast": (exchanges.broadcast(EXCHANGE, b"B", length=10, age=60_000_000), {}),
    "routes": (exchanges.routes(EXCHANGE), {}),
    "unbind": (exchanges.unbind(EXCHANGE, [b"bind:a"]), {}),
}  # fmt: skip

#: Those of which all arguments behind the command are keys.
MANY = ("DEL", "EXISTS", "MGET", "UNLINK")

#: In front of a script: it writes down its commands.
TRACE = """
local real = redis
local function note(...)
  real.call('RPUSH', 'trace', table.concat({ ... }, '\\n'))
end
local redis = { error_reply = real.error_reply, status_reply = real.status_reply, log = real.log,
  call = function(...) note(...) return real.call(...) end, pcall = function(...) note(...) return real.pcall(...) end }
"""

FAMILIES = ("flow", "waiting", "dedupe", "result", "call", "done")


def test_every_script_is_called_here() -> None:
    assert {command.script for command, _ in CALLS.values()} == set(SCRIPT_NAMES)


def _fill(server: redis.Redis, config: Mapping[str, str], grouped: bool) -> None:
    client = server.pipeline()
    client.flushdb()
    load(client, KEYS, STATE)
    client.hset(KEYS.named("config"), mapping={"layout": 1, **config, **({"group": GROUP.prefix} if grouped else {})})
    shared = GROUP.named if grouped else KEYS.named
    client.hset(shared("limits"), mapping=LIMITS)
    for name, scores in (("tat", {"bot": NOW + 5}), ("pauses", {"@9": NOW + 5})):
        client.zadd(shared(name), scores)
        client.expire(shared(name), 600)
    client.zadd(GROUP.named("queues"), {KEYS.prefix: 0, OTHER: NOW} if grouped else {OTHER: NOW})
    # A queue of the group that waits for a slot.
    client.hset(f"{OTHER}:slots", "llm", 3)
    client.hset(f"{OTHER}:needs", mapping={"x": "0 F llm Sllm,1", "y": "0 F llm Sllm,1"})
    client.zadd(f"{OTHER}:queue:processing", {"x": NOW - 1})
    client.zadd(f"{OTHER}:waiting:llm", {"llm": 3})
    client.zadd(f"{OTHER}:gates", {"llm": NOW + 5})
    exchanges_routes = f"{EXCHANGE.prefix}:routes"
    client.zadd(exchanges_routes, {"bind:a": NOW + LEASE})
    set_clock(client, KEYS.prefix, NOW)
    set_clock(client, EXCHANGE.prefix, NOW)
    client.execute()


def _touched(client: redis.Redis, command: Command[Any]) -> list[str]:
    """The keys that the call comes to, first ones first; the queue is changed."""
    script = SCRIPTS[command.script]
    keys = command.keys
    assert keys is not None
    identity = ("c", 1) if command.numbered else ()
    client.eval(TRACE + script.source, len(keys.fixed), *keys.fixed, keys.prefix, *identity, *command.args)
    found: dict[str, None] = {}
    for line in client.lrange("trace", 0, -1):
        name, *args = line.decode().split("\n")
        if name == "ZUNIONSTORE":
            args = [args[0], *args[2 : 2 + int(args[1])]]
        elif name in ("TIME", "PUBLISH"):
            args = []
        elif name not in MANY:
            args = args[:1]
        found |= dict.fromkeys(args)
    client.delete("trace")
    # What is named so exists never.
    nothing = (":never", ":flow:", ":waiting:", ":dedupe:", ":result:")
    return [key for key in found if not key.endswith(nothing) and key not in (clock_key(KEYS.prefix), clock_key(EXCHANGE.prefix))]


def _call(client: redis.Redis, command: Command[Any]) -> Exception | None:
    """Carry out a call; give its error."""
    script, keys = SCRIPTS[command.script], command.keys
    assert keys is not None
    identity = ("c", 1) if command.numbered else ()
    try:
        client.execute_command("EVAL", script.source, len(keys.fixed), *keys.fixed, keys.prefix, *identity, *command.args)
    except redis.ResponseError as error:
        return error
    return None


def _is_scratch(key: bytes) -> bool:
    """Whether a key may be another in the end when flows, waiting lists or another queue's keys were spoilt."""
    return any(part in key for part in (b":flow:", b":waiting:", f"{OTHER}:".encode())) or key.endswith(
        (b":run", b":gates", b":blocked")
    )


def _check_whole(client: Any, command: Command[Any]) -> None:
    """Each message is in one state at most, and leased if it runs; the call is remembered."""
    states = [client.zrange(KEYS.named(name), 0, -1) for name in ("main", "delayed", "retry", "processing", "dlq")]
    flat = [ident for state in states for ident in state]
    assert len(flat) == len(set(flat))
    assert set(client.hkeys(KEYS.named("messages"))) <= set(flat)
    leases = client.hgetall(KEYS.named("leases"))
    assert all(leases[ident][:1] != b"x" for ident in states[3])
    if command.numbered and command.keys == KEYS:
        assert client.exists(KEYS.call("c"))


def _spoil(client: redis.Redis, key: str, type_: str) -> None:
    """Make a key of that type one of another: of that which is the hardest to tell from it."""
    client.delete(key)
    if type_ == "zset":
        client.sadd(key, "a set")
    elif type_ == "string":
        client.hset(key, "a", "hash")
    else:
        client.set(key, "a string", ex=600)


@pytest.fixture
def server(raw: redis.Redis) -> Iterator[redis.Redis]:
    yield raw
    raw.flushdb()


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("name", CALLS)
def test_a_key_of_another_type_leaves_no_half_of_a_call(server: redis.Redis, name: str, grouped: bool) -> None:
    command, config = CALLS[name]
    _fill(server, config, grouped)
    keys = _touched(server, command)
    _fill(server, config, grouped)
    types = {key: server.type(key).decode() for key in keys}
    filled = everything(server)
    _call(server, command)
    whole = everything(server)
    types |= {key: server.type(key).decode() for key in keys if types[key] == "none"}
    for key in keys:
        _fill(server, config, grouped)
        _spoil(server, key, types[key])
        before = everything(server)
        error = _call(server, command)
        if error:
            assert classify(error).error is QueueConflict, (key, error)
            assert everything(server) == before, (key, "half of the call was done", error)
            continue
        if types[key] == "none":
            continue  # nothing is written there
        if whole == filled:
            assert everything(server) == before, (key, "a call that only reads has written")
            continue
        _check_whole(server, command)
        if not _is_scratch(key.encode()):
            after = everything(server)
            differing = {other for other in {*after, *whole} if after.get(other) != whole.get(other)}
            assert differing <= {key.encode()}, key


def _kinds(keys: Sequence[str]) -> dict[str, list[str]]:
    """What an ACL may name apart -> patterns for it: each single key; the keys of one family; another queue; an exchange."""
    kinds = {key: [key] for key in keys if key in {KEYS.named(each.name) for each in (*FIXED, *GATES)}}
    kinds |= {f"{KEYS.prefix}:{family}:": [f"{KEYS.prefix}:{family}:*"] for family in FAMILIES}
    kinds |= {f"{OTHER}:": [f"{OTHER}:*"], f"{GROUP.prefix}:": [f"{GROUP.prefix}:*"]}
    return kinds | {f"{EXCHANGE.prefix}:": [f"{EXCHANGE.prefix}:*"]}


@pytest.fixture
def user(raw: redis.Redis) -> Iterator[redis.Redis]:
    where = raw.connection_pool.connection_kwargs
    raw.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">pw", "+@all")
    with redis.Redis(port=where["port"], username="narrow", password="pw", protocol=2) as client:
        yield client
    raw.execute_command("ACL", "DELUSER", "narrow")


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("name", CALLS)
def test_a_user_without_some_of_the_keys_does_no_half_of_a_call(
    server: redis.Redis, user: redis.Redis, name: str, grouped: bool
) -> None:
    command, config = CALLS[name]
    _fill(server, config, grouped)
    keys = _touched(server, command)
    _fill(server, config, grouped)
    _call(server, command)
    whole = everything(server)
    kinds = _kinds(keys)
    clocks = [clock_key(KEYS.prefix), clock_key(EXCHANGE.prefix), KEYS.named("never")]
    for denied in [kind for kind in kinds if any(key.startswith(kind) for key in keys)]:
        _fill(server, config, grouped)
        before = everything(server)
        allowed = [*clocks, *(pattern for kind, patterns in kinds.items() if kind != denied for pattern in patterns)]
        server.execute_command("ACL", "SETUSER", "narrow", "resetkeys", *(f"~{pattern}" for pattern in allowed))
        error = _call(user, command)
        if error:
            assert classify(error).error is AccessDenied, (denied, error)
            assert everything(server) == before, (denied, "half of the call was done", error)
        else:
            assert everything(server) == whole, denied
