"""The worker processes of a chaos run: started, killed, frozen, replaced; an exit that nobody asked for is noticed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.verdict import Fault
from tests.integration.processes import WorkerProcess, wait_until

__all__ = ["Fleet"]


class Fleet:
    """Real `redisq worker` processes.

    Args:
        url: Where they find Redis.
        folder: For their logs, and for the ledger.
        lease: Seconds.
        options: Of the command line.
        environment: More variables.
    """

    def __init__(self, url: str, folder: Path, lease: float, options: Sequence[str], environment: dict[str, str]) -> None:
        self._url = url
        self._folder = folder
        self._options = options
        self._environment = {"CHAOS_LEDGER": str(folder), "CHAOS_LEASE": str(lease), **environment}
        self.workers: list[WorkerProcess] = []
        self._all: list[WorkerProcess] = []
        self._noted: dict[WorkerProcess, int] = {}

    def start(self, count: int) -> None:
        """Start so many, and wait until all are ready."""
        started = [self._start() for _ in range(count)]
        for worker in started:
            worker.ready()

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._url, self._folder, *self._options, app="tests.chaos.bot:app", **self._environment)
        self.workers.append(worker)
        self._all.append(worker)
        return worker

    def _size(self, worker: WorkerProcess) -> int:
        """Of its ledger."""
        ledger = self._folder / f"{worker.process.pid}.ledger"
        return ledger.stat().st_size if ledger.exists() else 0

    def look_again(self) -> None:
        """From now on only those are at work that do something anew."""
        self._noted = {worker: self._size(worker) for worker in self.workers}

    def is_at_work(self, worker: WorkerProcess) -> bool:
        """Whether it has begun to run handlers."""
        return self._size(worker) > self._noted.get(worker, 0)

    def is_frozen(self, worker: WorkerProcess) -> bool:
        """Whether the kernel has stopped it."""
        return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def one_at_work(self, seeded: random.Random) -> WorkerProcess:
        """Any that has begun to run handlers."""
        wait_until(lambda: any(map(self.is_at_work, self.workers)), "a worker at work", 30)
        return seeded.choice([worker for worker in self.workers if self.is_at_work(worker)])

    def kill(self, worker: WorkerProcess) -> Fault:
        """Kill it and start another; do not wait for that."""
        now = time.monotonic()
        assert worker.process.poll() is None, f"ended unasked: {worker.text()}"
        worker.kill()
        self.workers.remove(worker)
        self._start()
        return Fault("kill", str(worker.process.pid), now, now)

    def unasked_exits(self) -> list[str]:
        """The logs of those that ended, and were not told to."""
        return [worker.text() for worker in self.workers if worker.process.poll() is not None]

    def logs(self) -> list[str]:
        """Of all that ever ran, each on its own."""
        return [worker.text() for worker in self._all]

    def stop(self) -> list[int]:
        """Ask all to end; their exit codes."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        return [worker.wait() for worker in self.workers]

    def close(self) -> None:
        """End all, whatever state they are in."""
        for worker in self._all:
            worker.kill()
