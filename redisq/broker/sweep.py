"""Remove or replay all messages of a state, or delete a queue, in bounded calls: between two of them the server serves others.

What is there when a state's turn begins is taken; what comes later may stay, so that a busy producer, or replayed
messages that die again, cannot keep a sweep going for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from redisq.broker.commands import MAX_BATCH, Command, Deleted, QueueView, Replayed, delete, inspect, remove, replay
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import Steps
from redisq.broker.replies import texts

__all__ = ["delete_queue", "remove_all", "replay_all"]

#: Messages that one call of `delete` takes out of their lanes and limits, some milliseconds for the server.
_DELETED_AT_ONCE = 100

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


def delete_queue(keys: QueueKeys, *, if_empty: bool = False) -> Steps[int]:
    """Delete a queue with all in it. Returns how many messages waited; -1: it was not deleted.

    A large queue of messages with lanes, limits or dedupe keys goes in many calls. What is sent meanwhile goes too, or, with
    `if_empty`, keeps the queue.
    """
    answer: Deleted = yield delete(keys, if_empty=if_empty, most=_DELETED_AT_ONCE)
    waited, calls = answer.waited, answer.left // _DELETED_AT_ONCE + 1
    while answer.left:
        # Messages may come faster than they are deleted: after as many calls as were needed at first, one call deletes the rest.
        answer = yield delete(keys, if_empty=if_empty, most=_DELETED_AT_ONCE if calls else 0)
        calls -= 1
    return answer.waited if answer.waited < 0 else waited


def _count(keys: QueueKeys, state: str) -> Steps[int]:
    view: QueueView = yield inspect(keys)
    count: int = getattr(view, state)
    return count


def _ids(keys: QueueKeys, state: str, offset: int, limit: int) -> Command[list[str]]:
    """A page of ids alone: a thousand bodies may be a gigabyte."""
    return Command("", keys, ("ZRANGE", keys.named(_ZSETS[state]), offset, offset + limit - 1), texts)
