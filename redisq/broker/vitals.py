"""Read from a server all that `redisq doctor` judges. Nothing is changed, except that the server learns the scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions as redis_errors

from redisq.broker.commands import Command, inspect
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import Steps, layouts, server_time
from redisq.broker.repair import Losses, look
from redisq.broker.scripts import SCRIPT_NAMES, Scripts
from redisq.errors import AccessDenied, BrokerError, QueueConflict

__all__ = ["BEYOND_WORKERS", "PROBES", "Vitals", "is_cluster", "is_replica", "read_info", "read_vitals"]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a server says of itself.

    Attributes:
        info: The fields of `INFO`; empty when the user may not read them.
        clock_ahead: Seconds that the server's clock is ahead of this machine's.
        config: Of `CONFIG GET`, what could be read: `save`, `appendfsync`.
        scripts: Script -> why the server does not take it.
        scripts_unchecked: Why the user may not load scripts; empty when the user may. Workers send them with `EVAL` instead.
        denied: Commands that the user may not run, or not on these queues' keys, with the server's words.
        queues: Queue -> why it cannot be used; None: it can.
        losses: Queue -> what it has lost, of those that lost something.
        unnamed: Of the queues, those that are named only when something is wrong with them.
    """

    info: Mapping[str, str] = field(default_factory=dict)
    clock_ahead: float = 0.0
    config: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    scripts_unchecked: str = ""
    denied: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, str | None] = field(default_factory=dict)
    losses: Mapping[str, Losses] = field(default_factory=dict)
    unnamed: Collection[str] = ()


#: A queue with more messages is not walked: they are counted. A walk takes a second or two for so many.
_WALKED = 100_000
#: No lease is written by a look.
_LEASE = 30_000_000

_HSET = "redis.call('HSET', KEYS[1], 'a', '1') redis.call('DEL', KEYS[1]) return 1"
_HSETNX = "redis.call('HSETNX', KEYS[1], 'a', '1') redis.call('DEL', KEYS[1]) return 1"
_HINCRBY = "redis.call('HINCRBY', KEYS[1], 'a', '1') redis.call('DEL', KEYS[1]) return 1"
_XADD = "redis.call('XADD', KEYS[1], '*', 'a', '1') redis.call('DEL', KEYS[1]) return 1"

#: Command -> a call of it that changes nothing, on a key that never exists; the key's place is `{never}`. `HSET`, `HSETNX`,
#: `HINCRBY` and `XADD` are undone within the script that does them; `BZPOPMIN` finds a key of another type, and does not wait.
PROBES: dict[str, tuple[Any, ...]] = {
    "DEL": ("DEL", "{never}"),
    "EXISTS": ("EXISTS", "{never}"),
    "GET": ("GET", "{never}"),
    "HDEL": ("HDEL", "{never}", "a"),
    "HEXISTS": ("HEXISTS", "{never}", "a"),
    "HSTRLEN": ("HSTRLEN", "{never}", "a"),
    "HGET": ("HGET", "{never}", "a"),
    "HGETALL": ("HGETALL", "{never}"),
    "HINCRBY": ("EVAL", _HINCRBY, 1, "{never}"),
    "HKEYS": ("HKEYS", "{never}"),
    "HLEN": ("HLEN", "{never}"),
    "HMGET": ("HMGET", "{never}", "a"),
    "HSCAN": ("HSCAN", "{never}", 0),
    "HSET": ("EVAL", _HSET, 1, "{never}"),
    "HSETNX": ("EVAL", _HSETNX, 1, "{never}"),
    "HVALS": ("HVALS", "{never}"),
    "MGET": ("MGET", "{never}"),
    "PERSIST": ("PERSIST", "{never}"),
    "PEXPIRE": ("PEXPIRE", "{never}", 1),
    "PEXPIREAT": ("PEXPIREAT", "{never}", 1),
    "PTTL": ("PTTL", "{never}"),
    "PUBLISH": ("PUBLISH", "{prefix}:done:never", "1"),
    "SET": ("SET", "{never}", "1", "PX", 1000, "XX"),
    "TIME": ("TIME",),
    "TYPE": ("TYPE", "{never}"),
    "UNLINK": ("UNLINK", "{never}"),
    "XADD": ("EVAL", _XADD, 1, "{never}"),
    "XDEL": ("XDEL", "{never}", "0-1"),
    "XRANGE": ("XRANGE", "{never}", "-", "+", "COUNT", 1),
    "XREVRANGE": ("XREVRANGE", "{never}", "+", "-", "COUNT", 1),
    "ZADD": ("ZADD", "{never}", "XX", 0, "1"),
    "ZCARD": ("ZCARD", "{never}"),
    "ZCOUNT": ("ZCOUNT", "{never}", 0, 0),
    "ZPOPMIN": ("ZPOPMIN", "{never}"),
    "ZRANGE": ("ZRANGE", "{never}", 0, 0),
    "ZRANGEBYSCORE": ("ZRANGEBYSCORE", "{never}", 0, 0),
    "ZRANK": ("ZRANK", "{never}", "1"),
    "ZREM": ("ZREM", "{never}", "1"),
    "ZREMRANGEBYRANK": ("ZREMRANGEBYRANK", "{never}", 0, 0),
    "ZREMRANGEBYSCORE": ("ZREMRANGEBYSCORE", "{never}", 0, 0),
    "ZSCAN": ("ZSCAN", "{never}", 0),
    "ZSCORE": ("ZSCORE", "{never}", "1"),
    "ZUNIONSTORE": ("ZUNIONSTORE", "{never}", 1, "{never}"),
    "BZPOPMIN": ("BZPOPMIN", "{config}", 1),
}

#: Commands of `PROBES` that producers and workers of redisq never send -> what sends them.
BEYOND_WORKERS: dict[str, str] = {
    **dict.fromkeys(("PTTL", "XADD", "XDEL", "XRANGE", "XREVRANGE"), "Celery and kombu"),
    "ZSCAN": "an operator's commands",
}


def read_info() -> Steps[Mapping[str, str]]:
    """Read `INFO`; nothing, when the user may not.

    Raises:
        BrokerError: The server does not answer, or refuses the user altogether.
    """
    (info,) = yield (Command("", None, ("INFO",), _info),)
    if isinstance(info, AccessDenied) and _is_rule(info):
        return {}
    if isinstance(info, BrokerError):
        raise info
    found: Mapping[str, str] = info
    return found


def _is_rule(error: AccessDenied) -> bool:
    """Whether a rule forbids this one command; else the server does not know the user at all."""
    return isinstance(error.__cause__, redis_errors.NoPermissionError)


def is_replica(info: Mapping[str, str]) -> bool:
    """Whether the server follows another: it refuses writes."""
    return info.get("role") in ("slave", "replica")


def is_cluster(info: Mapping[str, str]) -> bool:
    """Whether the server is a node of a Cluster: it sends most commands elsewhere."""
    return info.get("cluster_enabled") == "1"


def read_vitals(info: Mapping[str, str], queues: Sequence[QueueKeys], now: Callable[[], float] = time.time) -> Steps[Vitals]:
    """Ask the server for all else. What it refuses is noted.

    Raises:
        BrokerError: The server does not answer.
    """
    before = now()
    server = yield server_time()
    after = now()
    config = yield from _config()
    scripts, unchecked = yield from _scripts()
    return Vitals(
        info=info,
        clock_ahead=server - (before + after) / 2,
        config=config,
        scripts=scripts,
        scripts_unchecked=unchecked,
        denied=(yield from _denied(() if is_replica(info) else queues)),
        queues=(yield from _conflicts(queues)),
        losses=(yield from _losses(queues)),
    )


def _config() -> Steps[dict[str, str]]:
    names = ("save", "appendfsync")
    results = yield tuple(Command("", None, ("CONFIG", "GET", name), _texts) for name in names)
    # Many hosted servers have no CONFIG.
    return {name: result[1] for name, result in zip(names, results, strict=True) if isinstance(result, list) and len(result) == 2}


def _scripts() -> Steps[tuple[dict[str, str], str]]:
    scripts = Scripts()
    results = yield tuple(Command("", None, ("SCRIPT", "LOAD", scripts[name].source), _text) for name in SCRIPT_NAMES)
    errors = {name: result for name, result in zip(SCRIPT_NAMES, results, strict=True) if isinstance(result, BrokerError)}
    unchecked = next((str(error) for error in errors.values() if isinstance(error, AccessDenied)), "")
    return {name: str(error) for name, error in errors.items() if not isinstance(error, AccessDenied)}, unchecked


def _denied(queues: Sequence[QueueKeys]) -> Steps[dict[str, str]]:
    denied: dict[str, str] = {}
    known = {keys for keys, layout in (yield from _layouts_or_nothing(queues)).items() if layout}
    for keys in queues:
        names = [name for name in PROBES if name != "BZPOPMIN" or keys in known]
        results = yield tuple(Command("", keys, _filled(PROBES[name], keys), _nothing) for name in names)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, AccessDenied):
                denied.setdefault(name, str(result))
    return denied


def _layouts_or_nothing(queues: Sequence[QueueKeys]) -> Steps[dict[QueueKeys, str | None]]:
    try:
        return (yield from layouts(queues))
    except AccessDenied:
        return {}


def _conflicts(queues: Sequence[QueueKeys]) -> Steps[dict[str, str | None]]:
    results: list[Any] = []
    if queues:
        results = yield tuple(inspect(keys) for keys in queues)
    return {
        keys.queue: str(result) if isinstance(result, BrokerError) else None for keys, result in zip(queues, results, strict=True)
    }


def _losses(queues: Sequence[QueueKeys]) -> Steps[dict[str, Losses]]:
    found: dict[str, Losses] = {}
    for keys in queues:
        states = ("main", "delayed", "retry", "processing", "dlq")
        bodies, *ids = yield (
            Command("", keys, ("HLEN", keys.named("messages")), int),
            *(Command("", keys, ("ZCARD", keys.named(state)), int) for state in states),
        )
        if any(isinstance(size, BrokerError) for size in (bodies, *ids)):
            continue  # what is wrong with it is told as its conflict
        try:
            if max(bodies, sum(ids)) <= _WALKED:
                losses = yield from look(keys, _LEASE)
            else:
                (view,) = yield (inspect(keys),)
                losses = Losses() if isinstance(view, BrokerError) else Losses(waiting=view.stateless, bodiless=view.bodiless)
        except (AccessDenied, QueueConflict):
            continue
        if any(losses):
            found[keys.queue] = losses
    return found


def _filled(call: tuple[Any, ...], keys: QueueKeys) -> tuple[Any, ...]:
    places = {
        "{never}": keys.named("never"), "{config}": keys.named("config"), "{prefix}:done:never": keys.done("never"),
    }  # fmt: skip
    return tuple(places.get(part, part) if isinstance(part, str) else part for part in call)


def _info(reply: Any) -> dict[str, str]:
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _texts(reply: Any) -> list[str]:
    return [_text(value) for value in reply]


def _nothing(_reply: Any) -> None:
    return None
