"""Soft and hard timeouts of the handlers that run: one look at all of them, four times a second.

A coroutine is told by cancellation, a child process is killed. A thread is told by an exception that it meets when it
next runs Python code: one that sleeps in a system call hears of it only afterwards, and nothing can stop it. What does
not stop in time is abandoned: its message is settled as failed, and its slot is taken until it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from redisq.clocks import monotonic
from redisq.errors import SoftTimeout, TaskCancelled
from redisq.worker.run import GRACE, Phase, Run
from redisq.worker.threads import ThreadPool

__all__ = ["Timeouts"]

#: Seconds between two looks. A timeout is never early, and late by no more than this.
INTERVAL = 0.25


class Timeouts:
    """Watches the runs while there are any.

    Args:
        loop: Where it looks.
        threads: Where handlers run that are told by it.
        runs: Returns those that run.
        abandon: Settles one that did not stop.
        log: The worker's logger.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPool,
        runs: Callable[[], Iterable[Run]],
        abandon: Callable[[Run], None],
        log: logging.Logger,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._loop = loop
        self._threads = threads
        self._runs = runs
        self._abandon = abandon
        self._log = log
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Something runs: look at it from now on."""
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._timer = None
        runs = list(self._runs())
        now = self._now()
        for run in runs:
            self.check(run, now)
        if runs:
            self.watch()

    def check(self, run: Run, now: float) -> None:
        """Do what one run's time asks for."""
        if run.started is None:
            return
        options, ran = run.task.definition, now - run.started
        if options.soft_timeout is not None and run.phase < Phase.WARNED and ran >= options.soft_timeout:
            run.phase = Phase.WARNED
            self._log.warning(
                "Task %s[%s] passed its soft timeout of %g s", run.task.name, run.held.delivery.id, options.soft_timeout
            )
            self._tell(run)
        if run.phase < Phase.STOPPED and options.timeout is not None and ran >= options.timeout:
            self._log.warning("Task %s[%s] passed its timeout of %g s", *_named(run), options.timeout)
            self.stop(run, now)
        elif run.phase is Phase.STOPPED and run.told is not None and now >= run.told + GRACE / 2:
            run.phase = Phase.ABANDONED
            self._log.error("Task %s[%s] does not stop; its slot is lost until it does", *_named(run))
            self._abandon(run)

    def stop(self, run: Run, now: float) -> None:
        """Tell a run to end."""
        run.phase, run.told = Phase.STOPPED, now
        self._tell(run)

    def _tell(self, run: Run) -> None:
        if run.coroutine:
            run.coroutine.cancel()
        elif run.apart:
            # The child sees to its soft timeout itself.
            if run.phase is Phase.STOPPED:
                run.apart.kill(run)
        else:
            self._threads.tell(run, TaskCancelled if run.cancelled else SoftTimeout)

    def close(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()


def _named(run: Run) -> tuple[str, str]:
    return run.task.name, run.held.delivery.id
