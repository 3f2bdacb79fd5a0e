"""The ledger: what happened, written outside the broker. One file a process, one line an event, one write a line.

S, E, X: a handler started, ended, was cancelled; written by the workers. I, C, U: a message is about to be sent, was
confirmed, may or may not have arrived; written by the producer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Book", "Entry", "read"]


class Entry(NamedTuple):
    """One event. `at` is in monotonic seconds, which all processes of a machine share."""

    kind: str
    number: int
    writer: str
    at: float


class Book:
    """The file of one process. A line is whole also when the process is killed right after."""

    def __init__(self, folder: Path, writer: str) -> None:
        self._file = os.open(folder / f"{writer}.ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, kind: str, *numbers: int) -> None:
        now = time.monotonic()
        os.write(self._file, "".join(f"{kind} {number} {now:.6f}\n" for number in numbers).encode())

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> list[Entry]:
    """All events, in the order of time."""
    return sorted(_entries(folder), key=lambda entry: entry.at)


def _entries(folder: Path) -> Iterator[Entry]:
    for path in folder.glob("*.ledger"):
        for line in path.read_text().splitlines():
            kind, number, at = line.split(" ")
            yield Entry(kind, int(number), path.stem, float(at))
