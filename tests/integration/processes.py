"""Real worker processes and what they wrote."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from redisq.worker.signals import TOGETHER

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait on a condition; the error names it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def has_died(pid: int) -> bool:
    """Whether the process has ended; its parent may not have asked for its exit code yet."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class WorkerProcess:
    """One `redisq worker` process."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *options: str,
        app: str = "tests.integration.bot:app",
        folder_to_run_in: Path = ROOT,
        **environment: str,
    ) -> None:
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        self.ledger = folder / "ledger"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "redisq", "worker", app, *options],
                cwd=folder_to_run_in, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "REDISQ_URL": url, "BOT_LEDGER": str(self.ledger), **environment},
            )  # fmt: skip

    def text(self) -> str:
        return self.log.read_text()

    def wait_for_log(self, pattern: str, seconds: float = 20) -> None:
        def seen() -> bool:
            found = re.search(pattern, self.text())
            assert found or self.process.poll() is None, f"the worker ended: {self.text()}"
            return bool(found)

        wait_until(seen, f"log line {pattern!r}; there is:\n{self.text()}", seconds)

    def ready(self) -> WorkerProcess:
        self.wait_for_log("is ready")
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def signal_again(self, number: signal.Signals, told: float) -> None:
        """A second signal, which counts as one: the first was sent at that monotonic time, and heard somewhat later."""
        wait_until(lambda: time.monotonic() > told + TOGETHER + 0.5, "a time after which a signal is another one")
        assert self.process.poll() is None, f"it ended before: {self.text()}"
        self.signal(number)

    def wait(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def kill_all(self) -> None:
        """With all processes that it started: they would take messages of the next test."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


class Ledger:
    """What the handlers wrote: starts and ends by their label."""

    def __init__(self, path: Path) -> None:
        rows = [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []
        self.starts = Counter(row[1] for row in rows if row[0] == "S")
        self.ends = Counter(row[1] for row in rows if row[0] == "E")
        self.pids = {row[1]: int(row[2]) for row in rows if row[0] == "S"}
        self.times = {(row[0], row[1]): float(row[3]) for row in rows}
