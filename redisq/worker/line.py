"""What a worker process tells its supervisor, over a pipe that it inherits.

An exit code does not say whether the process was ever well, and 0 is also what a handler's `os._exit(0)` gives.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

__all__ = ["LINE", "Ear", "Voice", "Word"]

#: Tells a worker process the number of its end of the pipe.
LINE = "REDISQ_SUPERVISOR_LINE"


class Word(StrEnum):
    """What is told."""

    READY = "ready"  # it claims messages
    ENDS = "ends"  # it was asked to, and is about to


class Voice:
    """A worker process's end.

    Args:
        slot: Which of the supervisor's processes it is.
        environ: Where the end's number is; without it, or when nobody listens, nothing is told.
    """

    def __init__(self, slot: str, environ: Mapping[str, str] = os.environ) -> None:
        self._slot = slot
        self._end = int(environ[LINE]) if LINE in environ else None
        if self._end is not None:
            with suppress(OSError):
                # What a handler starts has no business with it.
                os.set_inheritable(self._end, False)

    def say(self, word: Word) -> None:
        """Tell the supervisor. One write of so few bytes is whole, whoever else writes."""
        if self._end is not None:
            with suppress(OSError):
                os.write(self._end, f"{self._slot} {word}\n".encode())


class Ear:
    """The supervisor's end. A context manager, that closes both."""

    def __init__(self) -> None:
        self._end, self.given = os.pipe()
        os.set_blocking(self._end, False)
        self._said: defaultdict[int, set[str]] = defaultdict(set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        os.close(self._end)
        os.close(self.given)

    def said(self, slot: int) -> set[str]:
        """What that process has said since it was forgotten."""
        self._read()
        return self._said[slot]

    def anybody_said(self, word: Word) -> bool:
        """Whether one of them has."""
        self._read()
        return any(word in words for words in self._said.values())

    def forget(self, slot: int) -> None:
        """Another process takes its place."""
        self._read()
        self._said[slot] = set()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while raw := os.read(self._end, 65536):
                for line in raw.decode().splitlines():
                    slot, _, word = line.partition(" ")
                    self._said[int(slot)].add(word)
