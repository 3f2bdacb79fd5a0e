"""Whether a worker is alive, and whether it is ready: what its health checks say. Asked from another thread."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from redisq.worker.health import Report
from redisq.worker.outage import Outage
from redisq.worker.watchdog import Watchdog

__all__ = ["AWAY", "Readiness"]

#: Seconds without any answer from Redis that are too many. There is one every five at the least (`registry.BEAT`), and
#: who waits for a server that says nothing gives up after six.
AWAY = 12.0


class Readiness:
    """What is known of one worker.

    Args:
        outage: How its lines to Redis are.
        stopping: Whether it was told to stop.
        refused: Whether Redis refuses all claims.
        now: Monotonic seconds.

    Attributes:
        watchdog: How its event loop is; None: it is still starting.
    """

    def __init__(
        self,
        outage: Outage,
        stopping: Callable[[], bool],
        refused: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outage = outage
        self._stopping = stopping
        self._refused = refused
        self._now = now
        self.watchdog: Watchdog | None = None

    @property
    def reports(self) -> Mapping[str, Callable[[], Awaitable[Report]]]:
        """What can be asked for."""
        return {"live": self.live, "ready": self.ready}

    async def live(self) -> Report:
        """Alive, also while a handler blocks the event loop: the watchdog ends the process when its time is over.

        Not alive when it should have, and could not.
        """
        if self.watchdog and self.watchdog.is_stuck:
            return Report(False, {"live": False, "why": "the event loop is blocked past the hard limit of its handlers"})
        return Report(True, {"live": True})

    async def ready(self) -> Report:
        """Ready when Redis answers, and messages are claimed."""
        why = self._why_not()
        return Report(False, {"ready": False, "why": why}) if why else Report(True, {"ready": True})

    def _why_not(self) -> str:
        if self._stopping():
            return "stopping"
        if self.watchdog and (silence := self.watchdog.silence):
            return f"the event loop is blocked since {silence:.0f} s"
        unanswered = self._now() - self._outage.answered
        if self._outage.is_away or unanswered > AWAY:
            return f"Redis is away since {unanswered:.0f} s"
        if not self.watchdog:
            return "starting"
        return "Redis refuses all claims: see the log" if self._refused() else ""
