"""Keep n worker processes running: start another for each that dies, and say why it died."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import random

from redisq.backoff import Backoff
from redisq.worker.exits import Exit
from redisq.worker.health import Report, ask
from redisq.worker.orphans import reap_orphans

__all__ = ["HEALTH", "PARENT", "SLOT", "Supervisor", "how_it_ended"]

#: Tells a worker process whose child it is: it ends when that is gone.
PARENT = "REDISQ_SUPERVISOR_PID"

#: Which of the processes it is, from 0.
SLOT = "REDISQ_SUPERVISOR_SLOT"

#: The folder with a Unix socket for each of the processes, named by its slot: there it answers health checks.
HEALTH = "REDISQ_SUPERVISOR_HEALTH"

#: A process that lived this long in seconds was well: its next death is a first one.
WELL = 60.0


def how_it_ended(code: int) -> str:
    """Say in words what an exit code means; negative: killed by that signal."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", often for lack of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    known = {Exit.RECYCLE: "recycled itself", Exit.STUCK: "its event loop was stuck", Exit.ASKED: "ended without being asked"}
    return f"{known.get(Exit(code)) or 'failed'} (exit code {code})" if code in list(Exit) else f"exit code {code}"


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
        now: Callable[[], float] = time.monotonic,
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
        self._restarting: set[int] = set()
        self._signals = 0
        self._stopping = asyncio.Event()
        self._code = int(Exit.ASKED)

    async def run(self) -> int:
        """Run until a signal, or until a process says that it cannot work like this. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        beside = [asyncio.ensure_future(self._restart_on_change())] if self._changes else []
        if os.getpid() == 1:
            beside.append(asyncio.ensure_future(reap_orphans(self._ours)))
        try:
            await asyncio.gather(*(self._keep(slot) for slot in range(self._count)))
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
            about["why"] = f"not ready: {len(wanting)} of {self._count} processes"
        return Report(not wanting, about)

    async def _keep(self, slot: int) -> None:
        """Keep one process running."""
        failures = 0
        while not self._stopping.is_set():
            began = self._now()
            code = await self._one_life(slot)
            if self._stopping.is_set() or (self._once and code == Exit.ASKED):
                return
            if code in (Exit.REFUSED, Exit.USAGE):
                self._log.error("Worker process %d cannot work like this (exit code %d): stopping all", slot, code)
                self._code = code
                self._stop(signal.SIGTERM)
                return
            if slot in self._restarting:
                self._restarting.discard(slot)
                continue
            failures = 1 if self._now() - began > WELL else failures + 1
            wait = 0.0 if code == Exit.RECYCLE else self._backoff.delay(failures, random)
            level = logging.INFO if code == Exit.RECYCLE else logging.ERROR
            self._log.log(level, "Worker process %d %s, starting another in %.1f s", slot, how_it_ended(code), wait)
            await self._pause(wait)

    async def _one_life(self, slot: int) -> int:
        environment = {**os.environ, PARENT: str(os.getpid()), SLOT: str(slot)}
        if self._health:
            environment[HEALTH] = self._health
        self._spawning += 1
        try:
            process = await asyncio.create_subprocess_exec(*self._command, env=environment)
            self._processes[slot] = process
        finally:
            self._spawning -= 1
        if self._stopping.is_set():
            self._send(process, signal.SIGTERM)
        code = await process.wait()
        del self._processes[slot]
        return code

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _signalled(self) -> None:
        """The first signal drains, the second hurries, the third kills."""
        self._signals += 1
        if self._signals == 1:
            self._log.info("Stopping %d worker processes", len(self._processes))
        self._stop(signal.SIGTERM if self._signals < 3 else signal.SIGKILL)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._processes.values():
            self._send(process, number)

    def _send(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if process.returncode is None:
            process.send_signal(number)

    async def _restart_on_change(self) -> None:
        assert self._changes is not None
        async for _ in self._changes:
            self._log.info("The code changed, starting %d worker processes anew", len(self._processes))
            for slot, process in self._processes.items():
                self._restarting.add(slot)
                self._send(process, signal.SIGTERM)
