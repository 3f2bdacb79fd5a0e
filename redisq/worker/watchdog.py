"""A thread that sees when the event loop does not turn: it says where it hangs, and in the end ends the process.

A handler that blocks the loop stops all others, and the settlements of those that ended. Leases are extended all the
while (`renewer.py`), so nothing runs twice for it, but nothing else runs either.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable

from redisq.clocks import monotonic
from redisq.redact import redact
from redisq.worker.exits import LAST_WORD, Exit

__all__ = ["Watchdog"]

#: Seconds of silence after which the loop's stack is logged.
SILENT = 5.0


class Watchdog:
    """Watches one event loop from a thread of its own.

    Args:
        loop: The loop; made in the loop's thread.
        limit: Returns the monotonic time until when a run may be blocking the loop; None: for ever. Called from the thread.
        log: The worker's logger.
        silent: Seconds of silence that are too many.
        end: Ends the process.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: Callable[[], float | None],
        log: logging.Logger,
        silent: float = SILENT,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._log = log
        self._silent = silent
        self._end = end
        self._watched = threading.get_ident()
        self._beat = monotonic()
        self._stopped = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="redisq-watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._turn()
        self._thread.start()

    def _turn(self) -> None:
        self._beat = monotonic()
        self._timer = self._loop.call_later(self._silent / 5, self._turn)

    def _run(self) -> None:
        said, awake, interval = 0.0, monotonic(), self._silent / 5
        looked = awake
        while not self._stopped.wait(interval):
            now = monotonic()
            if now - looked > 2 * interval:
                # This thread did not turn either: the process was frozen, or got no core. The loop gets its time anew.
                awake = now
            looked = now
            beat = max(self._beat, awake)
            if now - beat < self._silent:
                continue
            if said < beat:
                said = now
                self._log.error("The event loop has been blocked for %.1f s by:\n%s", now - beat, self._stack())
            limit = self._limit()
            if limit is not None and now > limit and now - beat > self._silent:
                self._log.critical("The event loop is blocked past the hard limit of its handlers: ending the process")
                logging.shutdown()
                self._end(Exit.STUCK)

    @property
    def silence(self) -> float:
        """Seconds since the loop last turned, when they are too many; else 0. Safe to call from a thread."""
        silent = monotonic() - self._beat
        return silent if silent > self._silent and self._thread.is_alive() else 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether the process should have been ended, and was not: the log, say, goes to a pipe that nobody reads."""
        limit = self._limit()
        return limit is not None and monotonic() > limit + 2 * self._silent and self.silence > 0

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        # Frames hold file names and code, no values.
        return redact("".join(traceback.format_stack(frame)[-12:])) if frame else "(gone)"

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        if self._timer:
            self._timer.cancel()
        if self._thread.is_alive():
            self._thread.join(LAST_WORD)
