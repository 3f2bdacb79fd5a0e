"""Log each job that is done, and how long it took."""

from __future__ import annotations

import logging

from redisq.app.middleware import End, Middleware

__all__ = ["LogRuns"]


class LogRuns(Middleware):
    """One line for each job that is done: `Task answer[...] done in 0.123 s`. Failures have theirs from the worker.

    Args:
        log: Where to; else the logger `redisq.runs`.
        slower_than: Only those that ran longer than so many seconds.
    """

    def __init__(self, log: logging.Logger | None = None, *, slower_than: float = 0.0) -> None:
        self._log = log or logging.getLogger("redisq.runs")
        self._slower_than = slower_than

    def settle(self, end: End) -> None:
        """Redis has taken the end of a delivery."""
        if end.op == "ack" and end.run_time >= self._slower_than:
            attempt = f", attempt {end.attempt}" if end.attempt > 1 else ""
            self._log.info("Task %s[%s] done in %.3f s%s", end.task, end.id, end.run_time, attempt)
