"""The worker processes, and what a supervisor does for them: who is killed gets a successor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from redisq.errors import RedisqError

__all__ = ["DemoFailed", "Workers"]

#: Processes at a time. Two, so that one goes on where the other was killed.
COUNT = 2
#: Messages that one process runs at a time.
THREADS = 6
#: The poison kills two, and then runs apart. More deaths are another trouble.
MOST_DEATHS = 4


class DemoFailed(RedisqError):
    """The demo did not come to its end."""


class Workers:
    """The processes.

    Args:
        folder: For their logs.
        url: Where Redis is.
        chat_api: Host and port.
    """

    def __init__(self, folder: Path, url: str, chat_api: str) -> None:
        self._folder = folder
        # Nothing of what the user has set for other workers must reach these.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REDISQ_", "REDIS_"))}
        self._environment = {
            **inherited, "REDISQ_URL": url, "CHAT_API": chat_api, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }  # fmt: skip
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self.killed = 0

    def start(self) -> None:
        """Start all."""
        for _ in range(COUNT):
            self._start()

    def replace_killed(self) -> Iterator[tuple[str, str]]:
        """Start a successor for each that was killed; give the names of both.

        Raises:
            DemoFailed: One ended otherwise, or too many were killed.
        """
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            self.killed += 1
            if code != -signal.SIGKILL or self.killed > MOST_DEATHS:
                raise DemoFailed(f"{name} ended with code {code}; its log ends:\n{self._log_of(name)}")
            yield name, self._start()

    def last_words(self) -> str:
        """Return the end of each running worker's log."""
        return "\n".join(f"{name}:\n{self._log_of(name)}" for name in self._running)

    def close(self) -> None:
        """End all at once: the messages that they hold are nobody's."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it may have children
        for process in self._running.values():
            process.wait()

    def _start(self) -> str:
        self._started += 1
        name = f"worker-{self._started}"
        command = (sys.executable, "-m", "redisq", "worker", "redisq.demo.bot:app", "-t", str(THREADS), "-n", name, "-l", "WARNING")
        with self._log_file(name).open("wb") as output:
            # A session of its own: a terminal's Ctrl-C is for the demo, which then ends its workers.
            self._running[name] = subprocess.Popen(  # noqa: S603
                command, cwd=self._folder, env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return name

    def _log_file(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _log_of(self, name: str) -> str:
        return "\n".join(self._log_file(name).read_text(errors="replace").splitlines()[-10:])
