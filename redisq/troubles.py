"""Say what does not work when that changes, not at each try."""

from __future__ import annotations

import logging
from collections.abc import Callable

from redisq.clocks import monotonic

__all__ = ["Troubles"]


class Troubles:
    """What does not work at present, and since when. Different matters may be told from different threads.

    Args:
        log: Where changes are told.
        now: Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._now = now
        self._known: dict[str, tuple[type[Exception], float]] = {}

    def met(self, what: str, error: Exception, level: int = logging.WARNING) -> None:
        """It does not work. The next error of the same type says nothing new."""
        kind, since = self._known.get(what, (None, self._now()))
        if kind is not type(error):
            self._known[what] = type(error), since
            self._log.log(level, "Cannot %s, trying again: %s", what, error)

    def over(self, what: str) -> None:
        """It works."""
        if known := self._known.pop(what, None):
            self._log.warning("Can %s again, after %.0f s", what, self._now() - known[1])

    def __bool__(self) -> bool:
        return bool(self._known)

    def __contains__(self, what: str) -> bool:
        return what in self._known
