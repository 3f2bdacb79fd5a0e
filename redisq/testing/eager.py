"""Eager mode: a call runs where it is sent, with all that a message goes through on its way: codec, leases, verdicts.

Each message is stored, leased and settled by the scripts; in between its handler runs in the caller's thread or loop, and
the worker's verdicts say how it ends. So what cannot travel fails here too, and results and dead letters are where they
would be.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from unittest.mock import patch

from redisq.app.app import RedisQ
from redisq.app.calls import Calls
from redisq.app.job import Job
from redisq.broker.commands import MAX_BATCH, Settlement, claim, limited, settle
from redisq.broker.keys import QueueKeys
from redisq.message import Delivery
from redisq.testing.attempt import Attempt
from redisq.testing.clock import Clock
from redisq.worker.observers import Observers, end_of
from redisq.worker.refusals import refusal_of

__all__ = ["run_at_once"]

#: Nobody takes back what a handler is working on, however far it moves the clock.
_LEASE = timedelta(days=3650) // timedelta(microseconds=1)


@contextmanager
def run_at_once(app: RedisQ, clock: Clock, *, propagate: bool) -> Iterator[None]:
    """Calls of the app's tasks run where they are sent.

    Args:
        app: Whose calls; it is on a fake server.
        clock: Of that server.
        propagate: A call that fails for good raises its last error to the sender.
    """
    eager = Eager(app, clock, propagate)
    with patch.object(app, "enqueue", eager.enqueue), patch.object(app, "aenqueue", eager.aenqueue):
        yield


class Eager:
    """Stands in for an app's `enqueue` and `aenqueue`."""

    def __init__(self, app: RedisQ, clock: Clock, propagate: bool) -> None:
        self._app = app
        self._clock = clock
        self._propagate = propagate
        self._lock = threading.Lock()

    def enqueue(self, calls: Calls) -> list[Job]:
        """Store messages, and run each at once."""
        jobs = self._store(calls)
        for attempt in self._attempts(calls, jobs):
            attempt.run()
        return jobs

    async def aenqueue(self, calls: Calls) -> list[Job]:
        """Store messages, and run each at once, from async code. As `enqueue`."""
        jobs = self._store(calls)
        for attempt in self._attempts(calls, jobs):
            await attempt.arun()
        return jobs

    def _store(self, calls: Calls) -> list[Job]:
        # No `countdown`, no `eta`: at once. No limit and no lane: nothing runs beside it.
        gating = calls.gating and calls.gating.at_the_door_alone(lane=False)
        return RedisQ.enqueue(self._app, calls._replace(send=replace(calls.send, due="0"), gating=gating))

    def _attempts(self, calls: Calls, jobs: Sequence[Job]) -> Generator[Attempt, None, None]:
        """Give one attempt after the other, each to be run; raise the first error of the calls that failed for good."""
        keys = self._app.keys(self._app.queue_of(calls.options, calls.send))
        errors: list[BaseException] = []
        observers = Observers(self._app.hooks)
        for delivery in self._lease(keys, {job.id for job in jobs}):
            leased = [delivery]
            while leased:
                delivery = leased.pop()
                observers.claimed(keys, (delivery,))
                attempt = Attempt(self._app, keys, delivery, partial(self._settle_and_tell, observers, keys, delivery))
                yield attempt
                if attempt.to_be_repeated:
                    leased = self._lease(keys, {delivery.id})
                elif attempt.error is not None:
                    errors.append(attempt.error)
        if errors and self._propagate:
            raise errors[0]

    def _settle_and_tell(
        self, observers: Observers, keys: QueueKeys, delivery: Delivery, task: str | None, settlement: Settlement, run_time: int
    ) -> None:
        self._settle(keys, settlement, run_time)
        observers.end(end_of(keys, delivery, task, settlement, run_time))

    def _settle(self, keys: QueueKeys, settlement: Settlement, run_time: int = 0) -> None:
        if settlement.op not in ("retry", "limited"):
            self._app.connector.execute(settle(keys, (settlement,), run_time))
            return
        # Scripts take no delay of zero for a retry: it is due when the clock has moved by its delay.
        at_once = settlement._replace(delay=1)
        if settlement.op == "limited":
            at_once = limited(settlement.id, settlement.fence, gate="", pause=1, jitter=0, text=refusal_of(settlement).text)
        self._app.connector.execute(settle(keys, (at_once,), run_time))
        self._clock.advance(timedelta(microseconds=1))

    def _lease(self, keys: QueueKeys, ids: Collection[str]) -> list[Delivery]:
        """Lease these; without those that have expired, and none of a queue that is paused."""
        found: list[Delivery] = []
        others: list[Delivery] = []
        # Two threads must not take each other's calls for their own: what is not wanted is back before the next looks.
        with self._lock:
            while len(found) < len(ids):
                command = claim(keys, worker="eager", limit=MAX_BATCH, lease=_LEASE, max_crashes=1)
                leased = self._app.connector.execute(command).deliveries
                if not leased:
                    break
                found += [delivery for delivery in leased if delivery.id in ids]
                others += [delivery for delivery in leased if delivery.id not in ids]
            for other in others:
                self._settle(keys, Settlement("release", other.id, other.fence))
        return found
