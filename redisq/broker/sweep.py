"""Remove or replay all messages of a state, in bounded calls: between two of them the server serves others.

What is there when a state's turn begins is taken; what comes later may stay, so that a busy producer, or replayed
messages that die again, cannot keep a sweep going for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from redisq.broker.commands import MAX_BATCH, Command, QueueView, Replayed, inspect, remove, replay
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import Steps
from redisq.broker.replies import texts

__all__ = ["remove_all", "replay_all"]

#: State -> the short name of its key, in the order that messages move in: one that moves on is met again.
_ZSETS = {"delayed": "delayed", "retry": "retry", "waiting": "main", "dead": "dlq"}


def remove_all(keys: QueueKeys, states: Sequence[str], counter: str) -> Steps[int]:
    """Remove the messages that are in these states. Returns how many were: those that a worker took first are not."""
    removed = 0
    for state in _ZSETS:
        if state not in states:
            continue
        left = yield from _count(keys, state)
        while left > 0:
            ids: list[str] = yield _ids(keys, state, 0, min(left, MAX_BATCH))
            if not ids:
                break
            removed += len((yield remove(keys, ids, counter=counter, states=states)))
            left -= len(ids)
    return removed


def replay_all(keys: QueueKeys, *, beside: bool = False) -> Steps[tuple[int, dict[str, str]]]:
    """Make all dead letters wait again, as `commands.replay` does. Those without a body stay.

    Returns how many do, and those that do not -> the message that has their dedupe key.
    """
    held: dict[str, str] = {}
    replayed = kept = 0
    left = yield from _count(keys, "dead")
    while left > 0:
        ids: list[str] = yield _ids(keys, "dead", kept, min(left, MAX_BATCH))
        if not ids:
            break
        done: Replayed = yield replay(keys, ids, beside=beside)
        replayed += len(done.ids)
        held |= done.held
        kept += len(ids) - len(done.ids)
        left -= len(ids)
    return replayed, held


def _count(keys: QueueKeys, state: str) -> Steps[int]:
    view: QueueView = yield inspect(keys)
    count: int = getattr(view, state)
    return count


def _ids(keys: QueueKeys, state: str, offset: int, limit: int) -> Command[list[str]]:
    """A page of ids alone: a thousand bodies may be a gigabyte."""
    return Command("", keys, ("ZRANGE", keys.named(_ZSETS[state]), offset, offset + limit - 1), texts)
