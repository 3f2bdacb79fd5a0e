"""All keys of a database as plain data: to compare before and after, and to lay out a state by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redis.client import Pipeline

from redisq.broker.keys import FIXED, GATES, QueueKeys

__all__ = ["State", "dump", "everything", "load"]

#: Short name of a key, or the beginning of several (`calls`, `results`, `flow`, `waiting`, `dedupe`), -> its content, or
#: theirs. Empty ones are left out. Ids and bodies are text.
State = Mapping[str, Any]


#: How a key of each type is read.
_READ: Mapping[bytes, Callable[[Any, str | bytes], object]] = {
    b"string": lambda client, key: client.get(key),
    b"hash": lambda client, key: client.hgetall(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: client.smembers(key),
    b"stream": lambda client, key: client.xlen(key),
}


def everything(client: Any) -> dict[bytes, tuple[bytes, Any]]:
    """Each key of the database -> its type and value, whatever they are. In three trips, for tests read it often."""
    keys: list[bytes] = client.keys("*")
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
        types: list[bytes] = pipe.execute()
        for key, kind in zip(keys, types, strict=True):
            _READ[kind](pipe, key)
        return dict(zip(keys, zip(types, pipe.execute(), strict=True), strict=True))


def dump(client: Any, keys: QueueKeys) -> dict[str, Any]:
    """Read every key of the queue, the ledgers of callers and the results too."""
    whole = everything(client)

    def read(name: str | bytes, kind: bytes) -> Any:
        found, value = whole.get(name.encode() if isinstance(name, str) else name, (kind, None))
        assert found == kind, f"{name!r} is a {found.decode()}"
        return value

    def named(prefix: str) -> list[bytes]:
        return [key for key in whole if key.startswith(prefix.encode())]

    state: dict[str, Any] = {}
    for key in (*FIXED, *GATES):
        name = keys.named(key.name)
        if key.type == "zset":
            state[key.name] = _scores(read(name, b"zset"))
        elif key.type == "hash":
            state[key.name] = {_number(field): _number(value) for field, value in (read(name, b"hash") or {}).items()}
        elif (value := read(name, b"string")) is not None:
            state[key.name] = _number(value)
    for part, prefix in (("calls", keys.call("")), ("results", keys.result("")), ("dedupe", keys.dedupe(""))):
        state[part] = {key.decode().removeprefix(prefix): read(key, b"string").decode() for key in named(prefix)}
    for part, prefix in _several(keys).items():
        state[part] = {key.decode().removeprefix(prefix): _scores(read(key, b"zset")) for key in named(prefix)}
    return {name: content for name, content in state.items() if content != {}}


def _several(keys: QueueKeys) -> dict[str, str]:
    return {"flow": keys.flow(""), "waiting": keys.waiting("")}


def _scores(rows: Iterable[tuple[bytes, float]] | None) -> dict[str, int | float]:
    return {member.decode(): int(score) if score.is_integer() else score for member, score in rows or ()}


def _number(raw: bytes) -> str | int:
    text = raw.decode()
    return int(text) if text.isdigit() else text


def load(client: Any, keys: QueueKeys, state: State) -> None:
    """Write a state as `dump` would read it. In one trip; with a pipeline for a client, when that is carried out."""
    types = {key.name: key.type for key in (*FIXED, *GATES)}
    pipe = client if isinstance(client, Pipeline) else client.pipeline(transaction=False)
    for name, content in state.items():
        if name == "calls":
            for caller, text in content.items():
                pipe.set(keys.call(caller), text, px=600_000)
        elif name == "dedupe":
            for key, text in content.items():
                pipe.set(keys.dedupe(key), text)
        elif name in _several(keys):
            for part, scores in content.items():
                pipe.zadd(_several(keys)[name] + part, scores)
        elif types[name] == "zset":
            pipe.zadd(keys.named(name), content)
            if name in ("tat", "pauses"):
                pipe.expire(keys.named(name), 600)
        elif types[name] == "hash":
            pipe.hset(keys.named(name), mapping=content)
        else:
            pipe.set(keys.named(name), content)
    if pipe is not client:
        pipe.execute()
