"""Which queues share their limits."""

from __future__ import annotations

from typing import Any

from redisq.broker.commands import Command
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.queues import Steps

__all__ = ["read_group", "sharing", "where_limits_are"]


def read_group(keys: QueueKeys) -> Command[GroupKeys | None]:
    """Read the group that a queue is in; None: none."""
    return Command("", keys, ("HGET", keys.named("config"), "group"), _group)


def where_limits_are(keys: QueueKeys) -> Steps[QueueKeys | GroupKeys]:
    """Return what has the queue's rules, pauses and what rates gave out: the queue itself, or its group."""
    group: GroupKeys | None = yield read_group(keys)
    return group or keys


def sharing(keys: QueueKeys, shared: QueueKeys | GroupKeys) -> Steps[list[QueueKeys]]:
    """Return the queues that share limits which are there, itself among them."""
    if isinstance(shared, QueueKeys):
        return [keys]
    prefixes: list[str] = yield Command("", keys, ("ZRANGE", shared.named("queues"), 0, -1), _texts)
    return [shared.queue(prefix) for prefix in prefixes]


def _group(reply: Any) -> GroupKeys | None:
    return GroupKeys.of_prefix(_text(reply)) if reply else None


def _texts(reply: Any) -> list[str]:
    return [_text(value) for value in reply]


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
