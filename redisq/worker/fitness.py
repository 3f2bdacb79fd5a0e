"""Is this process still fit to go on? If not, it drains and another takes its place."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import random

from redisq.words import counted

__all__ = ["NO_LIMITS", "Fitness", "Limits", "resident_bytes"]

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the memory that this process has in use; where the system does not say, the most that it ever had."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """When a process is not fit any more; None: never for that reason.

    Attributes:
        max_tasks: After so many handlers, and up to a tenth more, so that not all processes go at once.
        max_memory: Over so many bytes of memory.
        max_leaks: After so many handlers that did not stop (see `timeouts.py`).
        parent: When the process of this id is not its parent any more.
    """

    max_tasks: int | None = None
    max_memory: int | None = None
    max_leaks: int | None = None
    parent: int | None = None


#: Fit for ever.
NO_LIMITS = Limits()


class Fitness:
    """Looks once a second, and when it is told that its share of tasks may be done.

    Args:
        limits: What is looked for.
        loop: Where.
        ended: Returns how many handlers have ended so far.
        leaks: Returns how many slots are lost.
        unfit: Told why.

    Attributes:
        share: How many handlers this process runs; None: any number.
    """

    def __init__(
        self,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[], int],
        leaks: Callable[[], int],
        unfit: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._loop = loop
        self._ended = ended
        self._leaks = leaks
        self._unfit = unfit
        self.share = limits.max_tasks and round(limits.max_tasks * (1 + random() / 10))  # noqa: S311
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, if there is anything to look for."""
        if self._limits != NO_LIMITS:
            self._timer = self._loop.call_later(1.0, self.look)

    def look(self) -> None:
        """Look now."""
        self.stop()
        reason = self.reason()
        if reason:
            self._unfit(reason)
        else:
            self.start()

    def reason(self) -> str:
        """Say why the process is not fit; empty if it is."""
        limits = self._limits
        if limits.parent is not None and os.getppid() != limits.parent:
            return "its supervisor is gone"
        if self.share is not None and self._ended() >= self.share:
            return f"its share of {counted(self._ended(), 'task')} is done"
        if limits.max_memory is not None and (used := resident_bytes()) > limits.max_memory:
            return f"{used // 2**20} MiB of memory are more than {limits.max_memory // 2**20}"
        if limits.max_leaks is not None and self._leaks() >= limits.max_leaks:
            return f"{counted(self._leaks(), 'slot')} lost to handlers that do not stop"
        return ""

    def stop(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()
