"""One run of a handler, from its start to its end."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from redisq.app.context import Context, Report, context_of
from redisq.app.progress import Progress
from redisq.app.task import Task
from redisq.clocks import monotonic
from redisq.worker.held import Held

if TYPE_CHECKING:
    from redisq.worker.board import Board
    from redisq.worker.processes import ProcessPool

__all__ = ["GRACE", "Phase", "Run"]

#: Seconds that a handler has to stop after its timeout; its lease is extended as long.
GRACE = 10.0


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
        worker: The worker's name.
        board: Where its progress goes.
        started: Monotonic seconds; None: it waits for a thread or a process.
        coroutine: What runs in the loop; None for a thread's.
        thread: The thread that runs it, by its identifier; else None.
        apart: The pool of processes that it runs in; else None.
        phase: How far its time is used up.
        told: Monotonic seconds when it was told to stop.
        cancelled: It was told because somebody cancelled the job.
        dropped: Its lease was lost, or given back: it is not begun any more.
        came: Monotonic seconds when it began to wait for its turn.
    """

    __slots__ = (
        "_context", "apart", "board", "came", "cancelled", "coroutine", "dropped", "held", "phase", "started", "task",
        "thread", "told", "worker",
    )  # fmt: skip

    def __init__(self, held: Held, task: Task[..., Any], worker: str, board: Board) -> None:
        self.held = held
        self.task = task
        self.worker = worker
        self.board = board
        self._context: Context | None = None
        self.started: float | None = None
        self.coroutine: asyncio.Task[None] | None = None
        self.thread: int | None = None
        self.apart: ProcessPool | None = None
        self.phase = Phase.IN_TIME
        self.told: float | None = None
        self.cancelled = False
        self.dropped = False
        self.came = 0.0

    def begin(self) -> None:
        """Its handler is called now: its time counts, and its lease is extended no longer than that lasts."""
        self.started = monotonic()
        timeout = self.task.definition.timeout
        self.held.until = None if timeout is None else self.started + timeout + GRACE

    def context(self) -> Context:
        """Return what its handler can know; made when first asked for."""
        if self._context is None:
            ran = 0.0 if self.started is None else monotonic() - self.started
            report: Report = self.tell_progress
            self._context = context_of(self.task.definition, self.held.delivery, self.held.keys.queue, self.worker, ran, report)
        return self._context

    def tell_progress(self, progress: Progress) -> None:
        """Its handler said how far it is."""
        self.board.post(self.held.keys, self.held.delivery.id, progress)

    @property
    def run_time(self) -> int:
        """Microseconds since it began."""
        return 0 if self.started is None else int((monotonic() - self.started) * 1_000_000)
