"""Keep n worker processes running: start another for each that dies, and say why it died."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from random import random
from typing import NamedTuple

from redisq.backoff import Backoff
from redisq.clocks import monotonic
from redisq.words import counted
from redisq.worker.exits import Exit
from redisq.worker.health import Report, ask
from redisq.worker.line import LINE, Ear, Word
from redisq.worker.orphans import reap_orphans
from redisq.worker.signals import ALSO_STOP, HURRY, Counter

__all__ = ["HEALTH", "PARENT", "SLOT", "Supervisor", "how_it_ended"]

#: Tells a worker process whose child it is: it ends when that is gone.
PARENT = "REDISQ_SUPERVISOR_PID"

#: Which of the processes it is, from 0.
SLOT = "REDISQ_SUPERVISOR_SLOT"

#: The folder with a Unix socket for each of the processes, named by its slot: there it answers health checks.
HEALTH = "REDISQ_SUPERVISOR_HEALTH"

#: A process that lived this long in seconds was well: its next death is a first one.
WELL = 60.0


#: The first signal drains, the second hurries, the third kills.
_MEANT = {1: signal.SIGTERM, 2: HURRY}

_WORDS = {
    Exit.ASKED: "ended without being asked",
    Exit.STUCK: "its event loop was stuck",
    Exit.RECYCLE: "recycled itself",
    Exit.REFUSED: "cannot work like this",
}


def how_it_ended(code: int) -> str:
    """Say in words what an exit code means; negative: killed by that signal."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", often for lack of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"{_WORDS.get(Exit(code), 'failed')} (exit code {code})" if code in list(Exit) else f"exit code {code}"


class Life(NamedTuple):
    """How one process went.

    Attributes:
        code: Its exit code; None: it could not be started.
        how: The same in words.
        was_ready: Whether it ever claimed messages.
        asked: Whether it ended because somebody asked it to, past the supervisor: by `redisq shutdown`, say.
    """

    code: int | None
    how: str
    was_ready: bool = False
    asked: bool = False

    @property
    def is_well(self) -> bool:
        """Whether it ended as it should: another may begin at once."""
        return self.was_ready and (self.code == Exit.RECYCLE or self.asked)


class Supervisor:
    """Runs n copies of one command.

    Args:
        command: The command of one worker process.
        count: How many.
        log: Where it says what happens.
        once: A process that ends well is not replaced: a burst.
        changes: Yields whenever the code changed and the processes are to be started anew; None: never.
        health: The folder in which the processes answer health checks; None: they do not.
        backoff: The waits before the restarts of a process that keeps dying.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        log: logging.Logger,
        *,
        once: bool = False,
        changes: AsyncIterator[object] | None = None,
        health: str | None = None,
        backoff: Backoff = Backoff(first=0.5, cap=30.0),  # noqa: B008 - frozen
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._command = command
        self._count = count
        self._log = log
        self._once = once
        self._changes = changes
        self._health = health
        self._backoff = backoff
        self._now = now
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._spawning = 0
        self._was_ready = False
        self._edition = 0
        self._changed = asyncio.Event()
        self._signals = Counter(now)
        self._stopping = asyncio.Event()
        self._code = int(Exit.ASKED)

    async def run(self) -> int:
        """Run until a signal, or until it turns out that no process can work like this. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, *ALSO_STOP):
            if number not in ALSO_STOP or signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it
                loop.add_signal_handler(number, self._signalled)
        beside = [asyncio.ensure_future(self._restart_on_change())] if self._changes else []
        if os.getpid() == 1:
            beside.append(asyncio.ensure_future(reap_orphans(self._ours)))
        try:
            with Ear() as ear:
                await asyncio.gather(*(self._keep(slot, ear) for slot in range(self._count)))
        finally:
            for task in beside:
                task.cancel()
        return self._code

    def _ours(self) -> set[int] | None:
        """The processes that are waited for; None while one is being started, whose id is not known yet."""
        return None if self._spawning else {process.pid for process in self._processes.values()}

    async def live(self) -> Report:
        """Alive: this is asked in a thread, and whatever its processes do, it replaces them."""
        return Report(True, {"live": True})

    async def ready(self) -> Report:
        """Ready when all its processes are. What each says is there by its slot. Safe to call from a thread."""
        if self._stopping.is_set():
            return Report(False, {"ready": False, "why": "stopping"})
        reports = await asyncio.gather(*(ask(f"{self._health}/{slot}", "ready") for slot in range(self._count)))
        wanting = [str(slot) for slot, report in enumerate(reports) if not report.good]
        about = {"ready": not wanting, "processes": {str(slot): report.about for slot, report in enumerate(reports)}}
        if wanting:
            about["why"] = f"not ready: {len(wanting)} of {counted(self._count, 'process', 'processes')}"
        return Report(not wanting, about)

    async def _keep(self, slot: int, ear: Ear) -> None:
        """Keep one process running."""
        failures = 0
        while not self._stopping.is_set():
            began, edition = self._now(), self._edition
            life = await self._one_life(slot, ear, edition)
            if self._stopping.is_set() or (self._once and life.code == Exit.ASKED):
                return
            if edition != self._edition:
                failures = 0
            elif self._is_hopeless(life, ear):
                self._log.error("Worker process %d %s: stopping all", slot, life.how)
                self._code = life.code or int(Exit.REFUSED)
                self._stop(signal.SIGTERM)
            elif self._changes and not life.was_ready and (life.code or 0) > 0:
                # Its code or its settings are broken, and somebody is at work on them.
                self._log.error("Worker process %d %s, starting another when the code changes", slot, life.how)
                await self._until_changed(edition)
            elif life.is_well:
                failures = 0
                self._log.info("Worker process %d %s, starting another in 0.0 s", slot, life.how)
            else:
                failures = 1 if self._now() - began > WELL else failures + 1
                wait = self._backoff.delay(failures, random)
                self._log.error("Worker process %d %s, starting another in %.1f s", slot, life.how, wait)
                await self._pause(wait)

    def _is_hopeless(self, life: Life, ear: Ear) -> bool:
        """Whether none can work like this. Where one could, the same command can again: it is tried on."""
        if life.code == Exit.USAGE or (life.code == Exit.REFUSED and not self._changes):
            return not self._was_ready and not ear.anybody_said(Word.READY)
        return False

    async def _one_life(self, slot: int, ear: Ear, edition: int) -> Life:
        environment = {**os.environ, PARENT: str(os.getpid()), SLOT: str(slot), LINE: str(ear.given)}
        if self._health:
            environment[HEALTH] = self._health
        ear.forget(slot)
        self._spawning += 1
        try:
            process = await asyncio.create_subprocess_exec(*self._command, env=environment, pass_fds=(ear.given,))
            self._processes[slot] = process
        except OSError as error:
            return Life(None, f"could not be started ({error.strerror or error})")
        finally:
            self._spawning -= 1
        if self._stopping.is_set() or edition != self._edition:
            self._send(process, _MEANT.get(self._signals.count or 1, signal.SIGKILL))
        code = await process.wait()
        del self._processes[slot]
        said = ear.said(slot)
        self._was_ready |= Word.READY in said
        asked = code == Exit.ASKED and Word.ENDS in said
        return Life(code, "ended as it was asked to" if asked else how_it_ended(code), Word.READY in said, asked)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _until_changed(self, edition: int) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._changed)]
        while edition == self._edition and not self._stopping.is_set():
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _signalled(self) -> None:
        if not self._signals.another():
            return
        if self._signals.count == 1:
            self._log.info("Stopping %s", counted(len(self._processes), "worker process", "worker processes"))
        self._stop(_MEANT.get(self._signals.count, signal.SIGKILL))

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._processes.values():
            self._send(process, number)

    def _send(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _restart_on_change(self) -> None:
        assert self._changes is not None
        async for _ in self._changes:
            self._log.info("The code changed, starting %s anew", counted(self._count, "worker process", "worker processes"))
            self._edition += 1
            self._changed.set()
            self._changed = asyncio.Event()
            for process in self._processes.values():
                self._send(process, signal.SIGTERM)
