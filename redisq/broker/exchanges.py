"""Exchanges of the kombu transport: what each is, what is bound to it, and the streams of fanout ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from redisq.broker.commands import Command
from redisq.broker.keys import ExchangeKeys
from redisq.broker.queues import PAGE, Steps, page
from redisq.errors import ConfigError

__all__ = ["bind", "broadcast", "known_exchanges", "last_broadcast", "listen", "routes", "unbind"]


def bind(keys: ExchangeKeys, entries: Iterable[tuple[bytes, int]]) -> Command[None]:
    """Enter routes, each for so many microseconds from now; 0: for good."""
    return Command("bind", keys, tuple(value for entry in entries for value in entry), _nothing)


def unbind(keys: ExchangeKeys, entries: Iterable[bytes]) -> Command[None]:
    """Take routes out."""
    return Command("unbind", keys, tuple(entries), _nothing)


def routes(keys: ExchangeKeys) -> Command[dict[bytes, int]]:
    """Read the routes that there are now: route -> microseconds that it still lasts; 0: for good."""
    return Command("routes", keys, (), _routes)


def known_exchanges(namespace: str) -> Steps[list[ExchangeKeys]]:
    """Find the exchanges of a namespace that have routes. Looks at every key's name once, a page a call."""
    prefix = f"{namespace}:redisq:exchange:" if namespace else "redisq:exchange:"
    found: set[ExchangeKeys] = set()
    cursor = 0
    while True:
        # What may be in a namespace means nothing to MATCH.
        cursor, names = yield Command("", None, ("SCAN", cursor, "MATCH", f"{prefix}*:routes", "COUNT", PAGE), page)
        for name in names:
            with suppress(ConfigError):
                found.add(ExchangeKeys(name.removeprefix(prefix).removesuffix(":routes"), namespace))
        if cursor == 0:
            return sorted(found, key=lambda keys: keys.prefix)


def broadcast(keys: ExchangeKeys, body: bytes, *, length: int, age: int) -> Command[None]:
    """Append to the stream of a fanout exchange; it keeps about `length` messages, for `age` microseconds."""
    return Command("broadcast", keys, (length, age, body), _nothing, numbered=True)


def last_broadcast(keys: ExchangeKeys) -> Command[str]:
    """Read the place of the last message: what is published from now on comes after it."""
    return Command("", None, ("XREVRANGE", keys.stream, "+", "-", "COUNT", 1), _last)


def listen(places: Mapping[ExchangeKeys, str], *, limit: int, block_ms: int | None) -> Command[dict[str, list[tuple[str, bytes]]]]:
    """Read what came after these places: stream -> (place, body)*. `block_ms`: wait so long for a first one."""
    blocking = () if block_ms is None else ("BLOCK", block_ms)
    names = [keys.stream for keys in places]
    return Command("", None, ("XREAD", "COUNT", limit, *blocking, "STREAMS", *names, *places.values()), _heard)


def _routes(reply: Any) -> dict[bytes, int]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _nothing(_reply: Any) -> None:
    return None


def _last(reply: Any) -> str:
    return reply[0][0].decode() if reply else "0-0"


def _heard(reply: Any) -> dict[str, list[tuple[str, bytes]]]:
    # One that was deleted meanwhile has no fields.
    return {
        stream.decode(): [(place.decode(), fields[1] if fields else b"") for place, fields in entries]
        for stream, entries in reply or ()
    }
