"""Process 1 gets the orphans of its namespace as children, and has to take their exit codes, or they stay as zombies.

Only a supervisor does that. It starts nothing but its worker processes, so what else dies here is nobody's. In a worker
process a handler may wait for a program that it started itself, and would be robbed of its exit code.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import suppress

__all__ = ["reap_orphans"]

#: Seconds between two looks.
INTERVAL = 0.5


async def reap_orphans(ours: Callable[[], Collection[int] | None]) -> None:
    """Take the exit codes of dead children that are not ours, for ever.

    Args:
        ours: Returns the processes that somebody waits for; None: that is not known just now.
    """
    while True:
        await asyncio.sleep(INTERVAL)
        while (known := ours()) is not None and (dead := _first_dead()) is not None and dead not in known:
            with suppress(ChildProcessError):
                os.waitpid(dead, os.WNOHANG)  # noqa: ASYNC222 - it is dead: there is no wait


def _first_dead() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None  # no children at all
    return found.si_pid if found else None
