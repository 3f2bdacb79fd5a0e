"""Child processes for handlers: one pipe a child, one delivery at a time in each; a dying child takes nothing with it.

Two pools use this: that of tasks with `pool="process"`, and the quarantine, of one child, for messages under suspicion of
having killed a worker.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from typing import NamedTuple

from redisq.broker.commands import Settlement
from redisq.worker.child import Said, child_main, pack_request, unpack_answer
from redisq.worker.run import Run
from redisq.worker.supervisor import how_it_ended

__all__ = ["ProcessPool"]

# Not fork: the parent has threads and an event loop.
_CONTEXT = get_context("spawn")

#: Told the run and how it ended, with a line for the log; or no settlement, and how the child died.
Done = Callable[[Run, Settlement | None, str], None]


class Asked(NamedTuple):
    """A delivery on its way to a child."""

    run: Run
    request: bytes
    done: Done


class Child:
    """One child process, and what it works on."""

    def __init__(self, number: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=child_main, args=(theirs, os.getpid()), name=f"redisq-child-{number}", daemon=True)
        self.process.start()
        # Only the child holds its end now: when it dies, ours reads the end of the file.
        theirs.close()
        self.asked: Asked | None = None

    def how_it_died(self) -> str:
        """Wait for its end, which is certain, and say how it came."""
        self.process.join()
        return how_it_ended(self.process.exitcode or 0)


class ProcessPool:
    """Runs deliveries in child processes.

    Args:
        loop: Where answers are read.
        size: Children at most; started when needed.
        max_bytes: The most that a message, or a result, may have.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, max_bytes: int) -> None:
        self._loop = loop
        self._size = size
        self._max_bytes = max_bytes
        self._waiting: deque[Asked] = deque()
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._started = 0

    @property
    def is_busy(self) -> bool:
        """Whether a delivery would have to wait for a child."""
        return not self._idle and len(self._children) >= self._size

    def submit(self, run: Run, home: tuple[str, str] | None, done: Done) -> None:
        """Run the delivery in a child, then `done(run, settlement, line)`; or `done(run, None, how it died)`.

        Args:
            run: The delivery and its task.
            home: The module and name of the app whose `run` hooks the child calls; None: it calls none.
            done: Told how it ended.

        Raises:
            ConfigError: No other process can find the task.
        """
        held = run.held
        request = pack_request(run.task, held.delivery, held.keys.queue, run.worker, home, self._max_bytes)
        self._waiting.append(Asked(run, request, done))
        self._next()

    def _next(self) -> None:
        while self._waiting:
            if self._idle:
                child = self._idle.pop()
            elif len(self._children) < self._size:
                child = self._start()
            else:
                return
            child.asked = self._waiting.popleft()
            child.asked.run.begin()
            with suppress(OSError):  # it died just now: reading says so
                child.pipe.send_bytes(child.asked.request)

    def _start(self) -> Child:
        self._started += 1
        child = Child(self._started)
        self._children.add(child)
        self._loop.add_reader(child.pipe.fileno(), self._answered, child)
        return child

    def _answered(self, child: Child) -> None:
        asked = child.asked
        try:
            answer = unpack_answer(child.pipe.recv_bytes())
        except (EOFError, OSError):
            self._bury(child)
            child.asked = None
            if asked:
                asked.done(asked.run, None, child.how_it_died())
        else:
            if isinstance(answer, Said):
                # A thread that a handler left behind may still talk of a job that is over.
                if asked and asked.run.held.delivery.id == answer.id:
                    asked.run.tell_progress(answer.progress)
                return
            child.asked = None
            self._idle.append(child)
            if asked:
                asked.done(asked.run, answer.settlement, answer.line)
        self._next()

    def _bury(self, child: Child) -> None:
        self._loop.remove_reader(child.pipe.fileno())
        child.pipe.close()
        self._children.discard(child)
        with suppress(ValueError):
            self._idle.remove(child)

    def kill(self, run: Run) -> None:
        """End the child that works on a run; the run ends by that. One that waits for a child is not begun any more."""
        for asked in [asked for asked in self._waiting if asked.run is run]:
            self._waiting.remove(asked)
            asked.done(run, None, "not begun")
        for child in self._children:
            if child.asked and child.asked.run is run:
                child.process.kill()

    def close(self) -> None:
        """End all children."""
        self._waiting.clear()
        for child in list(self._children):
            self._bury(child)
            child.process.kill()
            child.process.join()
