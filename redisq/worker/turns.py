"""Who begins next: one line for each pool of threads or processes, of the deliveries that wait for room in it, in order.

A worker claims what its pools have room for (`rooms.py`), so hardly anything waits here: short handlers of threads, which are
claimed a few milliseconds ahead; and what nobody could foresee. What has waited for a moment is given back to the queue, for
whoever has room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from redisq.clocks import monotonic
from redisq.redact import error_text
from redisq.worker.held import Held
from redisq.worker.run import Run

__all__ = ["MOMENT", "Pool", "Turns", "Waits"]

#: Seconds that a delivery may wait under a lease; at most twice as long until it is given back.
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
        """Return what it was given ahead and has not begun, in order; it is not begun any more."""


class Turns:
    """Begins what has its turn.

    Args:
        put_off: Gives back a delivery that has waited for a moment.
        failed: Told each that cannot be begun, and why.
        loop: Where it works.
    """

    def __init__(
        self, put_off: Callable[[Held], object], failed: Callable[[Held, str], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._put_off = put_off
        self._failed = failed
        self._loop = loop
        self._lines: dict[Pool, deque[Waits]] = {}
        #: Pools that were given more than they had room for.
        self._ahead: set[Pool] = set()
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def wait(self, pool: Pool, item: Waits) -> None:
        """Let it begin when it has its turn; in the next turn of the loop, when there is room."""
        if self._closed:
            self._failed(item.run.held, "the worker stops")
            return
        item.run.came = monotonic()
        line = self._lines.get(pool)
        if line is None:
            line = self._lines[pool] = deque()
        line.append(item)
        if not self._is_scheduled:
            self.look()

    def look(self) -> None:
        """There may be room: see to it in the next turn of the loop, when all that a claim brought is here.

        Threads that begin while the loop still works at that claim would only take the interpreter from it.
        """
        if self._lines and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_scheduled = False
        for pool in list(self._lines):
            line = self._lines[pool]
            while line and (pool.takes_ahead or pool.room > 0):
                item = line.popleft()
                try:
                    pool.start(item)
                except Exception as error:  # noqa: BLE001 - no thread can be started, say
                    self._failed(item.run.held, error_text(error))
            if pool.room < 0:
                self._ahead.add(pool)
            if not line:
                self._lines.pop(pool, None)
        if self._lines or self._ahead:
            self._watch()

    def has_room(self, pool: Pool) -> bool:
        """Whether one that came now would begin at once."""
        return pool.room > len(self._lines.get(pool, ()))

    def withdraw(self, run: Run) -> bool:
        """Take out one that waits: it does not begin any more. False: it has begun, or is about to."""
        self._take_back()
        found = any(_remove(line, run) for line in self._lines.values())
        self.look()
        return found

    def close(self) -> None:
        """Nothing begins any more."""
        self._closed = True
        self._take_back()
        self._lines.clear()
        if self._timer:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(MOMENT, self._look_for_late)

    def _look_for_late(self) -> None:
        self._timer = None
        self._take_back()
        late = monotonic() - MOMENT
        for line in list(self._lines.values()):
            for item in [item for item in line if item.run.came <= late and item.run.held.leased]:
                line.remove(item)
                self._put_off(item.run.held)
        self._look()

    def _take_back(self) -> None:
        """What waits in a pool waits here, in front."""
        for pool in self._ahead:
            if items := pool.take_back():
                self._lines.setdefault(pool, deque()).extendleft(reversed(items))
        self._ahead.clear()


def _remove(line: deque[Waits], run: Run) -> bool:
    for at, item in enumerate(line):
        if item.run is run:
            del line[at]
            return True
    return False
