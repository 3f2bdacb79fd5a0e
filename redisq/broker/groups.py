"""Which queues share their limits."""

from __future__ import annotations

from typing import Any

from redisq.broker.commands import Command
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.queues import Steps
from redisq.broker.replies import text, texts
from redisq.errors import ConfigError

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
    prefixes: list[str] = yield Command("", keys, ("ZRANGE", shared.named("queues"), 0, -1), texts)
    return [queue for prefix in prefixes if (queue := _queue(shared, prefix))]


def _queue(group: GroupKeys, prefix: str) -> QueueKeys | None:
    try:
        return group.queue(prefix)
    except ConfigError:
        return None  # another program wrote it: no queue has that name


def _group(reply: Any) -> GroupKeys | None:
    return GroupKeys.of_prefix(text(reply)) if reply else None
