"""All keys of a database as plain data: to compare before and after, and to lay out a state by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redisq.broker.keys import FIXED, GATES, QueueKeys

__all__ = ["State", "dump", "everything", "load"]

#: Short name of a key, or the beginning of several (`calls`, `results`, `flow`, `waiting`, `dedupe`), -> its content, or
#: theirs. Empty ones are left out. Ids and bodies are text.
State = Mapping[str, Any]


def everything(client: Any) -> dict[bytes, tuple[bytes, Any]]:
    """Each key of the database -> its type and value, whatever they are."""
    return {key: (client.type(key), _value(client, key)) for key in client.keys("*")}


def _value(client: Any, key: bytes) -> Any:
    readers = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
    }
    return readers[client.type(key)]()


def dump(client: Any, keys: QueueKeys) -> dict[str, Any]:
    """Read every key of the queue, the ledgers of callers and the results too."""
    state: dict[str, Any] = {}
    for key in (*FIXED, *GATES):
        name = keys.named(key.name)
        if key.type == "zset":
            state[key.name] = _scores(client, name)
        elif key.type == "hash":
            state[key.name] = {_number(field): _number(value) for field, value in client.hgetall(name).items()}
        elif (value := client.get(name)) is not None:
            state[key.name] = _number(value)
    for name, prefix in (("calls", keys.call("")), ("results", keys.result("")), ("dedupe", keys.dedupe(""))):
        state[name] = {key.decode().removeprefix(prefix): client.get(key).decode() for key in client.keys(f"{prefix}*")}
    for name, prefix in _several(keys).items():
        state[name] = {key.decode().removeprefix(prefix): _scores(client, key) for key in client.keys(f"{prefix}*")}
    return {name: content for name, content in state.items() if content != {}}


def _several(keys: QueueKeys) -> dict[str, str]:
    return {"flow": keys.flow(""), "waiting": keys.waiting("")}


def _scores(client: Any, name: str | bytes) -> dict[str, int | float]:
    rows = client.zrange(name, 0, -1, withscores=True)
    return {member.decode(): int(score) if score.is_integer() else score for member, score in rows}


def _number(raw: bytes) -> str | int:
    text = raw.decode()
    return int(text) if text.isdigit() else text


def load(client: Any, keys: QueueKeys, state: State) -> None:
    """Write a state as `dump` would read it."""
    types = {key.name: key.type for key in (*FIXED, *GATES)}
    for name, content in state.items():
        if name == "calls":
            for caller, text in content.items():
                client.set(keys.call(caller), text, px=600_000)
        elif name == "dedupe":
            for key, text in content.items():
                client.set(keys.dedupe(key), text)
        elif name in _several(keys):
            for part, scores in content.items():
                client.zadd(_several(keys)[name] + part, scores)
        elif types[name] == "zset":
            client.zadd(keys.named(name), content)
            if name in ("tat", "pauses"):
                client.expire(keys.named(name), 600)
        elif types[name] == "hash":
            client.hset(keys.named(name), mapping=content)
        else:
            client.set(keys.named(name), content)
