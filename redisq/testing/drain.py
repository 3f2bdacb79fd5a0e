"""Run what waits, with the worker that runs it in production, in this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from redisq.app.app import RedisQ
from redisq.broker.commands import browse, inspect
from redisq.broker.keys import QueueKeys
from redisq.states import State
from redisq.testing.clock import Clock
from redisq.worker.worker import Worker

__all__ = ["Drained", "drain"]

#: A task that sends itself again and again would keep the clock moving for ever.
MAX_MOVES = 1000

_NO_END = (
    "moved the clock {moves} times, to {now}, and calls are still due later: does a task send itself again?"
    " Then move it yourself: clock.advance(seconds), and drain() without delayed=True"
)


class Drained(NamedTuple):
    """What came of it: handlers that returned; runs that will be repeated, failed or refused (429); new dead letters."""

    done: int = 0
    retried: int = 0
    dead: int = 0


async def drain(app: RedisQ, clock: Clock, to_serve: Callable[[], Iterable[QueueKeys]], *, delayed: bool) -> Drained:
    """Run all that waits; with `delayed`, move the clock until nothing is left that is due later.

    Args:
        app: Whose calls.
        clock: Of its server.
        to_serve: Returns the queues that need a worker; what runs may send to others than before.
        delayed: Whether to move the clock.

    Raises:
        RuntimeError: There is no end to it.
    """
    before: dict[QueueKeys, Drained] = {}
    moves = 0
    while True:
        new = [keys for keys in to_serve() if keys not in before]
        before.update((keys, _counted(app, keys)) for keys in new)
        due = _next_due(app, before) if delayed and not new else None
        if due is not None and due > clock.us:
            moves += 1
            if moves > MAX_MOVES:
                raise RuntimeError(_NO_END.format(moves=MAX_MOVES, now=clock.now()))
            clock.move_to(due)
        elif not new:
            break
        await _burst(app, before)
    return Drained(*(sum(_counted(app, keys)[at] - then[at] for keys, then in before.items()) for at in range(3)))


async def _burst(app: RedisQ, queues: Iterable[QueueKeys]) -> None:
    await Worker(app, queues=[keys.queue for keys in queues], burst=True, name="sandbox").run()


def _next_due(app: RedisQ, queues: Iterable[QueueKeys]) -> int | None:
    """When the first of the delayed and failed calls is due, us."""
    states = (State.DELAYED, State.RETRY)
    pages = [app.connector.execute(browse(keys, state, offset=0, limit=1)) for keys in queues for state in states]
    return min((row.score for page in pages for row in page), default=None)


def _counted(app: RedisQ, keys: QueueKeys) -> Drained:
    stats = defaultdict(int, app.connector.execute(inspect(keys)).stats)
    return Drained(stats["processed_requests"], stats["retry_count"] + stats["limited"], stats["dlq_messages"])
