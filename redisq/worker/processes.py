"""Child processes for handlers: one pipe a child, one delivery at a time in each; a dying child takes nothing with it.

Two pools use this: that of tasks with `pool="process"`, and the quarantine, of one child, for messages under suspicion of
having killed a worker.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from typing import NamedTuple

from redisq.backoff import jitter_of
from redisq.broker.commands import Settlement, given_back
from redisq.clocks import monotonic
from redisq.logs import present_setup
from redisq.redact import error_text
from redisq.worker.child import Said, Stage, child_main, pack_request, unpack_answer
from redisq.worker.places import Home, Place
from redisq.worker.run import Run
from redisq.worker.supervisor import how_it_ended
from redisq.worker.verdict import NOT_IMPORTABLE, not_begun

__all__ = ["Asked", "ProcessPool"]

# Not fork: the parent has threads and an event loop.
_CONTEXT = get_context("spawn")

#: Seconds between two looks at whether the children that work are alive.
INTERVAL = 1.0

#: Seconds that a child has to start and to import a task's module.
IMPORT_SECONDS = 60.0

#: Told the run and how it ended, with a line for the log; or no settlement, and how the child died.
Done = Callable[[Run, Settlement | None, str], None]


class Asked(NamedTuple):
    """A delivery on its way to a child."""

    run: Run
    request: bytes
    done: Done


class Child:
    """One child process, and what it works on.

    Raises:
        OSError: There are too many processes, or open files.
    """

    def __init__(self, number: int) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        arguments = (theirs, os.getpid(), present_setup())
        self.process = _CONTEXT.Process(target=child_main, args=arguments, name=f"redisq-child-{number}", daemon=True)
        try:
            self.process.start()
        except BaseException:
            self.pipe.close()
            raise
        finally:
            # Only the child holds its end now: when it dies, ours reads the end of the file.
            theirs.close()
        self.asked: Asked | None = None
        self.is_ready = False
        self.has_begun = False
        self.since = 0.0
        self.is_killed = False

    def ask(self, asked: Asked) -> None:
        """Have it work on something, once it is ready."""
        self.asked, self.has_begun, self.since = asked, False, monotonic()
        if self.is_ready:
            self._send()

    def hear(self, stage: Stage) -> None:
        """It says how far it is. The task's timeouts count from the call of its handler."""
        if stage is Stage.READY:
            self.is_ready = True
            self._send()
        elif self.asked:
            self.has_begun = True
            self.asked.run.begin()

    def _send(self) -> None:
        if self.asked:
            with suppress(OSError):  # it died just now: reading says so
                self.pipe.send_bytes(self.asked.request)

    def kill(self) -> None:
        """End it, and what it works on."""
        self.is_killed = True
        self.process.kill()

    def how_it_died(self) -> str:
        """Wait for its end, and say how it came. Who closed the pipe and lives on is of no use any more."""
        self.process.join(1)
        self.process.kill()
        self.process.join()
        return how_it_ended(self.process.exitcode or 0)


class ProcessPool:
    """Runs deliveries in child processes.

    Args:
        loop: Where answers are read.
        size: Children at most; started when needed.
        max_bytes: The most that a message, or a result, may have.
        jitter: As in the app's settings.

    Attributes:
        size: Children at most.
    """

    takes_ahead = False

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, max_bytes: int, jitter: float | None = None) -> None:
        self._loop = loop
        self.size = size
        self._max_bytes = max_bytes
        self._jitter = jitter
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._started = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def room(self) -> int:
        """How many more can begin now."""
        return self.size - sum(child.asked is not None for child in self._children)

    def request(self, run: Run, place: Place, hooks_at: Home | None, done: Done) -> Asked:
        """Return what `start` takes, so that a child runs the delivery, then `done(run, settlement, line)`.

        Or `done(run, None, how it died)`. When no child can be started the settlement is its release.

        Args:
            run: The delivery and its task.
            place: Where the child finds the task.
            hooks_at: Where it finds the app whose `run` hooks it calls; None: it calls none.
            done: Told how it ended.
        """
        held = run.held
        request = pack_request(place, held.delivery, held.keys.queue, run.worker, hooks_at, self._max_bytes, self._jitter)
        return Asked(run, request, done)

    def start(self, asked: Asked) -> None:
        """Have a child run it. Only while there is room."""
        try:
            child = self._living() or self._start()
        except Exception as error:  # noqa: BLE001 - too many processes or open files, which may show as an ImportError too
            delivery = asked.run.held.delivery
            release = given_back(delivery)
            asked.done(asked.run, release, f"no process of its own: {error_text(error)}")
            return
        child.ask(asked)
        self._watch()

    def take_back(self) -> list[Asked]:
        """Nothing waits in it."""
        return []

    def _watch(self) -> None:
        if self._timer is None and any(child.asked for child in self._children):
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def _living(self) -> Child | None:
        """Take an idle child that did not die meanwhile."""
        while self._idle:
            child = self._idle.pop()
            if child.process.is_alive():
                return child
            self._bury(child)
        return None

    def _start(self) -> Child:
        self._started += 1
        child = Child(self._started)
        self._children.add(child)
        self._loop.add_reader(child.pipe.fileno(), self._answered, child)
        return child

    def _look(self) -> None:
        """Find the dead whose pipe is still held by something that they started, behind our back."""
        self._timer = None
        for child in self._children:
            if child.asked and not child.has_begun and monotonic() - child.since > IMPORT_SECONDS:
                child.process.kill()  # it counts as an import that failed
        for child in [child for child in self._children if child.asked and not child.process.is_alive()]:
            # It may have answered before.
            while child in self._children and child.pipe.poll():
                self._answered(child)
            if child in self._children:
                self._lose(child)
        self._watch()

    def _answered(self, child: Child) -> None:
        try:
            answer = unpack_answer(child.pipe.recv_bytes())
        except (EOFError, OSError):
            self._lose(child)
        else:
            asked = child.asked
            if isinstance(answer, Stage):
                child.hear(answer)
                return
            if isinstance(answer, Said):
                # A thread that a handler left behind may still talk of a job that is over.
                if asked and asked.run.held.delivery.id == answer.id:
                    asked.run.tell_progress(answer.progress)
                return
            child.asked = None
            self._idle.append(child)
            if asked:
                asked.done(asked.run, answer.settlement, answer.line)

    def _lose(self, child: Child) -> None:
        """It died, or closed its pipe, which it does at its end."""
        self._bury(child)
        asked, child.asked = child.asked, None
        if asked is None:
            return
        how = child.how_it_died()
        if child.has_begun or child.is_killed:
            asked.done(asked.run, None, how)
        else:  # the message had no part in it
            text = f"a process of its own ended before its modules were imported: {how}"
            asked.done(asked.run, not_begun(asked.run.held.delivery, NOT_IMPORTABLE, text, jitter_of(self._jitter)), text)

    def _bury(self, child: Child) -> None:
        self._loop.remove_reader(child.pipe.fileno())
        child.pipe.close()
        self._children.discard(child)
        with suppress(ValueError):
            self._idle.remove(child)

    def kill(self, run: Run) -> None:
        """End the child that works on a run; the run ends by that."""
        for child in self._children:
            if child.asked and child.asked.run is run:
                child.kill()

    def close(self) -> None:
        """End all children."""
        if self._timer:
            self._timer.cancel()
        for child in list(self._children):
            self._bury(child)
            child.process.kill()
            child.process.join()
