"""What signals mean to a worker process, and how often it was told.

A terminal's Ctrl-C, systemd's `KillMode=control-group` and supervisord's `stopasgroup` send a signal to all processes of a
group; the supervisor among them passes it on. A second signal means "now", so the same one twice must not count as two.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from redisq.clocks import monotonic
from redisq.worker.exits import Exit

__all__ = ["ALSO_STOP", "HURRY", "TOGETHER", "Counter", "Signals", "take_over"]

#: Signals within so many seconds of one that counted are that one.
TOGETHER = 1.0

#: What a supervisor sends in place of a second SIGTERM: it cannot be taken for a repetition of the first, and nobody else
#: sends it. Not SIGQUIT: a terminal sends that to the whole group.
HURRY = signal.SIGURG

#: These stop a worker as SIGTERM does, where the system's default would kill it: a closed terminal, Ctrl-\, and signals that
#: operators send to programs that reload or write a dump.
ALSO_STOP = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Counter:
    """Counts how often somebody said "stop"."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._last: float | None = None
        self.count = 0

    def another(self) -> bool:
        """A signal came: whether it counts."""
        now = self._now()
        if self._last is not None and now - self._last < TOGETHER:
            return False
        self._last = now
        self.count += 1
        return True


class Signals:
    """Takes a worker process's signals from its making on: before its app is imported, which may take long.

    A process without a handler gets the system's default, and process 1 of a container nothing at all.

    Args:
        supervised: SIGINT is the supervisor's affair, which passes on what it means.
        ends: Called when it ends before it began.
    """

    def __init__(self, supervised: bool, ends: Callable[[], object] | None = None) -> None:
        self._supervised = supervised
        self._ends = ends
        self._counter = Counter()
        self._stop: Callable[[], object] = _nothing
        self._loop: asyncio.AbstractEventLoop | None = None
        signal.signal(signal.SIGTERM, self._at_once)
        # Not SIG_IGN, which the programs that a handler starts would inherit.
        signal.signal(signal.SIGINT, _nothing if supervised else self._at_once)
        if supervised:
            signal.signal(HURRY, self._at_once)
        take_over(self._also)

    def _at_once(self, *_: Any) -> None:
        """Nothing is claimed yet, so there is nothing to give back."""
        if self._ends:
            self._ends()
        os._exit(Exit.ASKED)

    def _also(self, *_: Any) -> None:
        if self._loop is None:
            self._at_once()
        else:
            self._loop.call_soon_threadsafe(self._told)

    def attach(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
        """From now on the loop is told: once to drain, again to hurry."""
        # The handlers of `ALSO_STOP` stay as they are: the app may have taken one of these signals for itself meanwhile.
        self._stop, self._loop = stop, loop
        loop.add_signal_handler(signal.SIGTERM, self._told)
        if self._supervised:
            loop.add_signal_handler(HURRY, self._hurried)
        else:
            loop.add_signal_handler(signal.SIGINT, self._told)

    def _told(self) -> None:
        if self._counter.another():
            self._stop()

    def _hurried(self) -> None:
        if not self._counter.count:
            self._told()
        self._stop()


def take_over(handler: Callable[..., object]) -> None:
    """Have the signals of `ALSO_STOP` call it; one that is ignored (`nohup`) stays ignored."""
    for number in ALSO_STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _nothing(*_: Any) -> None:
    pass
