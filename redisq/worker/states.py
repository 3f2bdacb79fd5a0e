"""Say what does not work when that changes, not at each try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["States"]


class States:
    """What does not work at present, and since when.

    Args:
        log: Where changes are told.
        level: The level for what does not work any more.
        now: Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, level: int = logging.WARNING, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._level = level
        self._now = now
        self._why: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def say(self, what: str, why: str, kind: str | None = None) -> None:
        """It works, if there is no reason why not. The same again is not told; nor is another text of the same kind."""
        before, now = self._why.get(what, ""), kind or why if why else ""
        if now == before:
            return
        if why:
            self._since.setdefault(what, self._now())
            self._why[what] = now
            self._log.log(self._level, "Cannot %s, trying again: %s", what, why)
        else:
            del self._why[what]
            self._log.warning("Can %s again, after %.0f s", what, self._now() - self._since.pop(what))

    def __contains__(self, what: str) -> bool:
        return what in self._why
