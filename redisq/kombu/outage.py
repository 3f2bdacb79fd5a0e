"""Say once that Redis is away, and once that it is back, whatever notices it: the claims, the keeper, a renewal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from redisq.errors import BrokerUnavailable
from redisq.troubles import Troubles

__all__ = ["Outage", "OutageTroubles"]

#: Seconds after an outage in which a failure begins no new one: it may be of a call that was sent before the end.
_GRACE = 3.0


class Outage:
    """Whether Redis is away, for all threads of one connection.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: float | None = None
        self._ended = float("-inf")

    @property
    def lasts(self) -> bool:
        """Whether Redis is away."""
        return self._since is not None

    def begin(self) -> bool:
        """Note that Redis is away. Returns whether that is news."""
        if self._since is not None or self._now() < self._ended + _GRACE:
            return False
        self._since = self._now()
        return True

    def end(self) -> float | None:
        """Note that Redis answers. Returns for how many seconds it was away; None: it was not."""
        since, self._since = self._since, None
        if since is None:
            return None
        self._ended = self._now()
        return self._ended - since


class OutageTroubles(Troubles):
    """Troubles of one thread. That Redis is away is one trouble, whatever it is that fails.

    Args:
        log: Where changes are told.
        outage: What the threads of a connection share.
    """

    def __init__(self, log: logging.Logger, outage: Outage) -> None:
        super().__init__(log)
        self._outage = outage

    def met(self, what: str, error: Exception, level: int = logging.WARNING) -> None:
        """Record that something does not work. Log it once."""
        if not isinstance(error, BrokerUnavailable):
            super().met(what, error, level)
        elif self._outage.begin():
            # What failed first does not matter, and may be a call that the program knows nothing of.
            self._log.warning("Redis is away, waiting for it: %s", error.why or error)

    def over(self, what: str) -> None:
        """Record that it works. Log it when it did not before."""
        seconds = self._outage.end()
        if seconds is not None:
            self._log.warning("Redis is back, after %.0f s", seconds)
        super().over(what)

    def __bool__(self) -> bool:
        return self._outage.lasts or super().__bool__()
