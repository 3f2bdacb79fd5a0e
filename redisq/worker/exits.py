"""How a worker process ends: its exit codes, and its threads. `docs/reference/cli.md` shows the codes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["LAST_WORD", "Exit"]

#: Seconds that a thread of the worker's own gets to end. One that is still there when the interpreter ends may hang it.
LAST_WORD = 0.5


class Exit(IntEnum):
    """Why a worker process ended."""

    ASKED = 0  # by a signal, by `redisq shutdown`, or the burst was over
    FAILED = 1  # an error that another start may not meet: Python's own code for any traceback
    USAGE = 2  # a wrong command line
    STUCK = 70  # its event loop was blocked past the hard limit
    RECYCLE = 75  # it has done its share of tasks, uses too much memory, or has lost too many slots: start another
    REFUSED = 78  # it cannot work like this, and says so in words: a wrong app, password, queue ...
