"""One run of a handler, from its start to its end."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any

from redisq.app.task import Task
from redisq.worker.held import Held

__all__ = ["Phase", "Run"]


class Phase(IntEnum):
    """How far a run's time is used up."""

    IN_TIME = 0
    WARNED = 1  # its soft timeout passed, and it was told
    STOPPED = 2  # its timeout passed, and it was told to stop
    ABANDONED = 3  # it did not stop: its message is settled, it only takes a slot


class Run:
    """One run of a handler.

    Attributes:
        held: The delivery.
        task: Whose handler.
        started: Monotonic seconds.
        coroutine: What runs in the loop; None for a thread's.
        thread: The thread that runs it, by its identifier; None for a coroutine, or while it waits for a thread.
        phase: How far its time is used up.
    """

    __slots__ = ("coroutine", "held", "phase", "started", "task", "thread")

    def __init__(self, held: Held, task: Task[..., Any], started: float) -> None:
        self.held = held
        self.task = task
        self.started = started
        self.coroutine: asyncio.Task[None] | None = None
        self.thread: int | None = None
        self.phase = Phase.IN_TIME
