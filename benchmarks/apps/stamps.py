"""What a handler does to say when it started: one line in the file `$BENCH_STAMPS`, seconds since a given moment."""

from __future__ import annotations

import functools
import os
import time

CLOCKS = {"monotonic": time.monotonic, "wall": time.time}


@functools.cache
def _file() -> int:
    return os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def stamp_now(clock: str, since: float) -> None:
    """Append how long ago `since` was on that clock; processes of one machine share both clocks."""
    passed = CLOCKS[clock]() - since
    os.write(_file(), f"{passed!r}\n".encode())
