"""Signals that end the demo set a mark, so that no exception strikes in the middle of cleaning up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignals", "Stopped", "stop_signals"]


class Stopped(Exception):
    """Somebody wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopSignals:
    """The mark."""

    def __init__(self) -> None:
        self._number = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """A signal came."""
        self._number = number

    def check(self) -> None:
        """Go on if none came.

        Raises:
            Stopped: One did.
        """
        if self._number:
            raise Stopped(self._number)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Listen to Ctrl-C, to `kill`, and to the end of the terminal."""
    stop = StopSignals()
    # What is ignored, as `nohup` and shells do it for what runs in the background, stays so.
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop.note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
