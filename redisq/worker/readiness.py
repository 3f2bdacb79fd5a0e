"""Whether a worker is alive, and whether it is ready: what its health checks say. Asked from another thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from redisq.clocks import monotonic
from redisq.worker.health import Report
from redisq.worker.outage import Outage
from redisq.worker.watchdog import Watchdog

__all__ = ["AWAY", "Readiness"]

#: Seconds without any answer from Redis that are too many. A server that is there is asked four times a second
#: (`broker/pulse.py`), so it may pause for one and a half: for a long script, or a fork.
AWAY = 1.75


class Readiness:
    """What is known of one worker.

    Args:
        outage: How its lines to Redis are.
        heard: Returns when Redis last answered on a line that asks all the time, in monotonic seconds.
        stopping: Whether it was told to stop.
        refused: Returns the queues of which Redis refuses something.
        now: Monotonic seconds.

    Attributes:
        watchdog: How its event loop is; None: it is still starting.
    """

    def __init__(
        self,
        outage: Outage,
        heard: Callable[[], float],
        stopping: Callable[[], bool],
        refused: Callable[[], Sequence[str]],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._outage = outage
        self._heard = heard
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
        """Ready when Redis answers, and messages are claimed from each queue."""
        why = self._why_not()
        return Report(False, {"ready": False, "why": why}) if why else Report(True, {"ready": True})

    def _why_not(self) -> str:
        if self._stopping():
            return "stopping"
        if self.watchdog and (silence := self.watchdog.silence):
            return f"the event loop has been blocked for {silence:.0f} s"
        answered = max(self._outage.answered, self._heard())
        unanswered = self._now() - answered
        if (self._outage.failed or 0.0) > answered or unanswered > AWAY:
            return f"Redis has been away for {unanswered:.0f} s"
        if not self.watchdog:
            return "starting"
        if refused := self._refused():
            return f"Redis refuses queue {', '.join(refused)}: see the log"
        return ""
