"""Say once that Redis is away, and once that it is back, whatever the number of connections."""

from __future__ import annotations

import logging
from collections.abc import Callable

from redisq.clocks import monotonic
from redisq.redact import error_text

__all__ = ["Line", "Outage"]


class Outage:
    """The state of all of a worker's lines to Redis.

    Attributes:
        answered: Monotonic seconds of the last answer on any line; of the start, before the first one.
        failed: Monotonic seconds when a call last failed, not for the first time; None: none did.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._now = now
        self._down: set[Line] = set()
        self.answered = now()
        self.failed: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the last that was heard was a failure. A line that has nothing to say may know of the end only later."""
        return self.failed is not None and self.failed > self.answered

    def line(self) -> Line:
        """Return the observer of one connector."""
        return Line(self)

    def went_down(self, line: Line, error: Exception) -> None:
        """A call on that line failed."""
        if not self._down:
            self._log.warning("Lost Redis connection, trying again: %s", error_text(error))
        self._down.add(line)
        self.failed = self._now()

    def was_answered(self) -> None:
        """A call on some line was answered."""
        self.answered = self._now()

    def came_up(self, line: Line) -> None:
        """A call on that line was answered."""
        self._down.discard(line)
        if not self._down:
            self._log.warning("Redis connection is back")


class Line:
    """Observes one connector."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._is_down = False

    def down(self, error: Exception) -> None:
        """A call failed and will be repeated."""
        self._is_down = True
        self._outage.went_down(self, error)

    def up(self) -> None:
        """A call was answered."""
        self._outage.was_answered()
        if self._is_down:
            self._is_down = False
            self._outage.came_up(self)
