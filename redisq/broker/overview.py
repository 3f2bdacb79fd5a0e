"""What operators ask of several queues at once: how they stand, and where a message is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redisq.broker.commands import Found, QueueView, Row, browse, find, inspect, outcome, seek
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import Steps, server_time
from redisq.codec.summary import celery_id
from redisq.errors import BrokerError

__all__ = ["Place", "celery_places", "dead_letters", "finished", "overview", "places"]

#: Messages of one page: their bodies come too.
_PAGE = 100


class Place(NamedTuple):
    """Where one message is, and the server's time of that moment, in microseconds."""

    id: str
    keys: QueueKeys
    found: Found
    now: int


def overview(queues: Sequence[QueueKeys]) -> Steps[list[tuple[QueueKeys, QueueView | BrokerError]]]:
    """Read the lengths and counters of each queue; an error in the place of one that cannot be read."""
    results: list[Any] = []
    if queues:
        results = yield tuple(inspect(keys) for keys in queues)
    return list(zip(queues, results, strict=True))


def places(queues: Sequence[QueueKeys], id: str) -> Steps[list[Place]]:
    """Look for a message in each queue. More than one has it only when somebody else made its id.

    Raises:
        BrokerError: It was not found, and a queue could not be read.
    """
    results: list[Any] = yield (server_time(), *(find(keys, id) for keys in queues))
    now, *found = results
    if isinstance(now, BrokerError):
        raise now
    moment = round(now * 1_000_000)
    there = [Place(id, keys, each, moment) for keys, each in zip(queues, found, strict=True) if isinstance(each, Found)]
    if not there:
        _raise_first(found)
    return there


def celery_places(queues: Sequence[QueueKeys], task_id: str) -> Steps[list[Place]]:
    """Look for the messages of a task of Celery. A task that is tried again has two for a moment.

    All messages of the queues are looked through, page by page: Celery's ids are in the messages alone.

    Raises:
        BrokerError: A queue could not be read.
    """
    found: list[Place] = []
    for keys in queues:
        cursor = ""
        while cursor != "0":
            cursor, ids = yield seek(keys, task_id, cursor or "0")
            # The text may be elsewhere in a message: that of a task that calls others, say. A message may come in two pages.
            for ident in ids:
                there = yield from places((keys,), ident)
                found += [place for place in there if celery_id(place.found.body) == task_id and place not in found]
    return found


def finished(queues: Sequence[QueueKeys], id: str) -> Steps[QueueKeys | None]:
    """Return the queue that keeps the result of a job, if one does."""
    results: list[Any] = []
    if queues:
        results = yield tuple(outcome(keys, id) for keys in queues)
    _raise_first(results)
    return next((keys for keys, result in zip(queues, results, strict=True) if result.state == "done"), None)


def dead_letters(queues: Sequence[QueueKeys], *, offset: int, limit: int) -> Steps[tuple[int, list[tuple[QueueKeys, Row]], int]]:
    """Read a page of the dead letters of the queues, one queue after the other, the oldest of each first.

    Returns:
        The server's time in microseconds, the page, and how many there are in all.
    """
    now: float = yield server_time()
    total = 0
    page: list[tuple[QueueKeys, Row]] = []
    for keys, view in (yield from overview(queues)):
        if isinstance(view, BrokerError):
            raise view
        start = max(0, offset - total)
        while start < view.dead and len(page) < limit:
            rows: list[Row] = yield browse(keys, "dead", offset=start, limit=min(_PAGE, limit - len(page)))
            if not rows:
                break
            page += [(keys, row) for row in rows]
            start += len(rows)
        total += view.dead
    return round(now * 1_000_000), page, total


def _raise_first(results: Sequence[Any]) -> None:
    for result in results:
        if isinstance(result, BrokerError):
            raise result
