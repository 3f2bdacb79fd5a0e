"""The steady clock, for deadlines: it goes on while a test has frozen the time (freezegun freezes `time.monotonic` too)."""

from __future__ import annotations

import asyncio
import operator
import sys
import time
from collections.abc import Callable
from functools import partial

__all__ = ["monotonic", "steady_loop"]

#: Seconds that only grow, as those of `time.monotonic`. Of that name is the clock that it reads on macOS; on Windows there is
#: only the function itself, in a place where no package looks for one to freeze.
monotonic: Callable[[], float]
if sys.platform == "win32":
    monotonic = partial(operator.call, time.monotonic)
else:
    monotonic = partial(time.clock_gettime, getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC))


class _SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go on. In asyncio's own, nothing that sleeps ever wakes up while the time is frozen."""

    def time(self) -> float:
        """Return the loop's time."""
        return monotonic()


def steady_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop whose timers go on while the time is frozen."""
    return asyncio.new_event_loop() if sys.platform == "win32" else _SteadyLoop()
