"""Who begins next: one line for each pool of threads or processes, of the deliveries that wait for room in it, in order.

What waits for longer than a moment is noted as waiting in its lease (`lua/begin.lua`), and so it is not charged with the
death of its worker. From then on it begins only when Redis has noted that as well, and said that it is ours still; nothing
runs that is noted as waiting. What begins within the moment costs no trip.

So a worker that dies may charge what waited for less than that. But what was there when a worker died has no such moment: when
it has to wait, and before it begins, all that wait are noted first. So what waits is charged once, and hardly ever twice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from redisq.broker.commands import MAX_BATCH, Command, begin
from redisq.broker.connector import AsyncConnector
from redisq.broker.keys import QueueKeys
from redisq.cancelling import end_tasks
from redisq.errors import BrokerError
from redisq.redact import error_text
from redisq.worker.held import Held
from redisq.worker.run import Run

__all__ = ["MOMENT", "Coroutine", "Loop", "Pool", "Tell", "Turns", "Waits"]

#: What is done with a delivery of which Redis says that word.
Tell = Mapping[str, Callable[[Held], object]]

#: Seconds that one may wait without a word to Redis; at most twice as long until it is noted.
MOMENT = 0.05


class Waits(Protocol):
    """What is handed to a pool."""

    @property
    def run(self) -> Run:
        """The delivery and its task."""


class Pool(Protocol):
    """Where handlers run."""

    @property
    def takes_ahead(self) -> bool:
        """Whether it can be given more than it has room for, and so begin the next without a turn of the loop."""

    @property
    def room(self) -> int:
        """How many more could begin now; less than 0: so many wait in it."""

    def start(self, item: Any) -> None:
        """Begin one. May raise: it does not begin."""

    def take_back(self) -> list[Any]:
        """Return what it was given ahead and has not begun; it is not begun any more."""


class Coroutine(NamedTuple):
    """A coroutine that is not started yet."""

    run: Run
    start: Callable[[], None]


class Loop:
    """The event loop, as a pool: there is always room."""

    takes_ahead = False
    room = sys.maxsize

    def start(self, item: Coroutine) -> None:
        """Start the coroutine."""
        item.start()

    def take_back(self) -> list[Coroutine]:
        """Nothing waits in it."""
        return []


class Note(NamedTuple):
    """What one command says to Redis."""

    held: list[Held]
    to_begin: bool
    command: Command[dict[str, str]]


class Turns:
    """Begins what has its turn.

    Args:
        connector: Asks Redis. Waits out any outage.
        tell: What is done with a delivery that is not to begin, by the word of `begin`: `lost` or `cancel`. It is
            withdrawn by that.
        failed: Told each that cannot be begun, and why.
        loop: Where it works.
        log: The worker's logger.
    """

    def __init__(
        self,
        connector: AsyncConnector,
        tell: Tell,
        failed: Callable[[Held, str], None],
        loop: asyncio.AbstractEventLoop,
        log: logging.Logger,
    ) -> None:
        self._connector = connector
        self._tell = tell
        self._failed = failed
        self._loop = loop
        self._log = log
        self._lines: dict[Pool, deque[Waits]] = {}
        #: Pools that were given more than they had room for.
        self._ahead: set[Pool] = set()
        #: Those whose turn has come, when Redis has answered.
        self._asked: dict[Held, tuple[Pool, Waits]] = {}
        self._asking: asyncio.Task[None] | None = None
        #: Somebody came who was there when a worker died.
        self._wary = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def wait(self, pool: Pool, item: Waits) -> None:
        """Let it begin when it has its turn."""
        if self._closed:
            self._failed(item.run.held, "the worker stops")
            return
        item.run.came = self._loop.time()
        self._wary |= item.run.held.delivery.meta.crashes > 0
        self._lines.setdefault(pool, deque()).append(item)
        self.look()

    def look(self) -> None:
        """There may be room: see to it in the next turn of the loop."""
        if self._lines and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._look)

    def has_room(self, pool: Pool) -> bool:
        """Whether one that came now would begin at once."""
        waiting = len(self._lines.get(pool, ())) + sum(where is pool for where, _ in self._asked.values())
        return pool.room > waiting

    def withdraw(self, run: Run) -> bool:
        """Take out one that waits: it does not begin any more. False: it has begun, or is about to."""
        if self._asked.pop(run.held, None):
            return True
        self._take_back()
        self.look()
        for line in self._lines.values():
            for at, item in enumerate(line):
                if item.run is run:
                    del line[at]
                    return True
        return False

    def close(self) -> None:
        """Nothing begins any more."""
        self._closed = True
        self._take_back()
        self._lines.clear()
        self._asked.clear()
        if self._timer:
            self._timer.cancel()

    async def abort(self) -> None:
        """Drop a question that is on its way."""
        self.close()
        if self._asking:
            await end_tasks((self._asking,))

    def _take_back(self) -> None:
        """What waits in a pool waits here, in front."""
        for pool in self._ahead:
            if items := pool.take_back():
                self._lines.setdefault(pool, deque()).extendleft(reversed(items))
        self._ahead.clear()

    def _look_for_late(self) -> None:
        self._timer = None
        if self._asking:  # should Redis be away: what waits in a pool need not wait for it
            self._timer = self._loop.call_later(MOMENT, self._look_for_late)
            return
        self._take_back()
        self._look(self._loop.time() - MOMENT)

    def _look(self, late: float = -math.inf) -> None:
        """Begin what has its turn. What came no later than `late`, and has to wait, is noted."""
        self._scheduled = False
        if self._asking or self._closed:
            return  # when Redis has answered it is looked again
        if self._wary:
            self._take_back()
        # With nobody to be wary of, the next ones begin ahead: before another moment is over somebody looks.
        turns = [(pool, item) for pool, line in self._lines.items() for item in _next(pool, line, late, not self._wary)]
        if self._wary or any(item.run.held.delivery.meta.crashes for _, item in turns):
            late = math.inf
        self._wary = False
        self._lines = {pool: line for pool, line in self._lines.items() if line}
        begins = [item.run.held for _, item in turns if item.run.noted]
        waits = list(self._to_note(late)) if late > -math.inf else []
        if begins or waits:
            self._asked = {item.run.held: (pool, item) for pool, item in turns}
            self._asking = self._loop.create_task(self._ask(waits, begins))
        else:
            self._begin(turns)
        if self._timer is None and (self._lines or self._ahead):
            self._timer = self._loop.call_later(MOMENT, self._look_for_late)

    def _to_note(self, late: float) -> Iterator[Held]:
        for line in self._lines.values():
            for item in line:
                run = item.run
                if run.came <= late and not run.noted and run.held.leased:
                    run.noted = True
                    yield run.held

    def _begin(self, turns: Iterable[tuple[Pool, Waits]]) -> None:
        for pool, item in turns:
            try:
                pool.start(item)
            except Exception as error:  # noqa: BLE001 - no thread can be started, say
                self._failed(item.run.held, error_text(error))
            if pool.room < 0:
                self._ahead.add(pool)

    async def _ask(self, waits: Sequence[Held], begins: Sequence[Held]) -> None:
        notes = [*_notes(waits, to_begin=False), *_notes(begins, to_begin=True)]
        results: list[Any]
        try:
            results = await self._connector.execute_many([note.command for note in notes])
        except Exception as error:  # noqa: BLE001 - a worker never ends for its bookkeeping
            self._log.exception("Could not ask Redis whose turn it is")
            results = [BrokerError(f"trip failed: {type(error).__name__}")] * len(notes)
        try:
            for note, result in zip(notes, results, strict=True):
                self._heard(note, result)
        finally:
            turns, self._asked, self._asking = list(self._asked.values()), {}, None
            self._begin(turns)
            self._look()

    def _heard(self, note: Note, result: dict[str, str] | BrokerError) -> None:
        for held in note.held:
            # One that waits is asked for again before it begins: what was refused matters then.
            if isinstance(result, BrokerError):
                if note.to_begin and self._asked.pop(held, None) is not None:
                    self._failed(held, error_text(result))
            elif verdict := result.get(held.delivery.id):
                self._tell[verdict](held)


def _next(pool: Pool, line: deque[Waits], late: float, ahead: bool) -> list[Waits]:
    """Take those whose turn it is out of the line."""
    if ahead and pool.takes_ahead and line and not line[0].run.noted and line[0].run.came > late:
        turns = list(line)
        line.clear()
        return turns
    return [line.popleft() for _ in range(min(max(pool.room, 0), len(line)))]


def _notes(deliveries: Iterable[Held], to_begin: bool) -> Iterator[Note]:
    by_queue: dict[QueueKeys, list[Held]] = {}
    for held in deliveries:
        by_queue.setdefault(held.keys, []).append(held)
    for keys, wanted in by_queue.items():
        for at in range(0, len(wanted), MAX_BATCH):
            some = wanted[at : at + MAX_BATCH]
            leases = [(held.delivery.id, held.delivery.fence) for held in some]
            command = begin(keys, leases) if to_begin else begin(keys, [], waiting=leases)
            yield Note(some, to_begin, command)
