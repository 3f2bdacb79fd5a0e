"""Which queues there are in a database. Until there is a registry, their `config` keys tell."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from redisq.broker.commands import Command
from redisq.broker.keys import QueueKeys
from redisq.broker.replies import text, texts
from redisq.errors import AccessDenied, BrokerError, ConfigError, QueueConflict

__all__ = ["PAGE", "Steps", "known_queues", "layouts", "lost_queues", "page", "server_time"]

T = TypeVar("T")

#: What a generator of this package yields: a command, or several that are sent in one write, whose results may be errors.
Steps = Generator[Command[Any] | tuple[Command[Any], ...], Any, T]

#: Keys that one SCAN looks at; between two of them the server serves others.
PAGE = 1000


def known_queues() -> Steps[list[QueueKeys]]:
    """Find the queues of a database, in all namespaces, by name. Looks at every key's name once, a thousand a call.

    Queues that the user may not read are passed over, as long as there are others.

    Raises:
        AccessDenied: The user may read no queue, or may not look for them.
    """
    found: set[QueueKeys] = set()
    denied: AccessDenied | None = None
    cursor = 0
    while True:
        cursor, names = yield Command("", None, ("SCAN", cursor, "MATCH", "*:config", "COUNT", PAGE), page)
        candidates = [keys for keys in map(_queue_of, names) if keys]
        for keys, layout in (yield from _read(candidates)).items():
            if isinstance(layout, AccessDenied):
                denied = layout
            elif layout is not None:
                found.add(keys)
        if cursor == 0:
            if denied and not found:
                raise denied
            return sorted(found, key=lambda keys: keys.prefix)


def lost_queues() -> Steps[list[QueueKeys]]:
    """Find the queues whose `config` was deleted or evicted, by name: those that have messages and a clock, and no layout."""
    found: set[QueueKeys] = set()
    cursor = -1
    while cursor != 0:
        cursor, names = yield Command("", None, ("SCAN", max(cursor, 0), "MATCH", "*:messages", "COUNT", PAGE), page)
        candidates = [keys for keys in (_queue_of(name, ":messages") for name in names) if keys]
        bare = [keys for keys, layout in (yield from _read(candidates)).items() if layout is None]
        if bare:
            commands = (Command("", keys, ("EXISTS", keys.named("clock"), keys.named("stats")), int) for keys in bare)
            counts: list[Any] = yield tuple(commands)
            found.update(keys for keys, count in zip(bare, counts, strict=True) if count == 2)
    return sorted(found, key=lambda keys: keys.prefix)


def layouts(queues: Sequence[QueueKeys]) -> Steps[dict[QueueKeys, str | None]]:
    """Read each queue's layout; None: it has none, so it is no queue, or not yet one."""
    read = yield from _read(queues)
    for layout in read.values():
        if isinstance(layout, AccessDenied):
            raise layout
    return {keys: layout for keys, layout in read.items() if not isinstance(layout, AccessDenied)}


def _read(queues: Sequence[QueueKeys]) -> Steps[dict[QueueKeys, str | AccessDenied | None]]:
    if not queues:
        return {}
    commands = tuple(Command("", keys, ("HGET", keys.named("config"), "layout"), _text_or_none) for keys in queues)
    results: list[Any] = yield commands
    read: dict[QueueKeys, str | AccessDenied | None] = {}
    for keys, result in zip(queues, results, strict=True):
        if isinstance(result, BrokerError) and not isinstance(result, QueueConflict | AccessDenied):
            raise result
        read[keys] = None if isinstance(result, QueueConflict) else result
    return read


def server_time() -> Command[float]:
    """Read the server's clock: seconds since the epoch."""
    return Command("", None, ("TIME",), _seconds)


def _queue_of(name: str, suffix: str = ":config") -> QueueKeys | None:
    namespace, _, queue = name.removesuffix(suffix).rpartition(":")
    try:
        return QueueKeys(queue, namespace)
    except ConfigError:
        return None


def page(reply: Any) -> tuple[int, list[str]]:
    """Read an answer of SCAN: where to go on, and names of keys."""
    return int(reply[0]), texts(reply[1])


def _text_or_none(reply: Any) -> str | None:
    return None if reply is None else text(reply)


def _seconds(reply: Any) -> float:
    return int(reply[0]) + int(reply[1]) / 1_000_000
