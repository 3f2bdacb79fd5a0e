"""As process 1, as in a container without an init: signals count, and no child stays behind as a zombie.

The kernel does not deliver a signal to process 1 for which it has no handler, and makes it the parent of all orphans.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.worker.signals import TOGETHER
from tests.integration.processes import ROOT, Ledger, wait_until


class Container:
    """A command as process 1 of a PID namespace; `unshare` waits outside of it for its end."""

    def __init__(self, url: str, folder: Path, *options: str, app: str = "tests.integration.bot:app", **environment: str) -> None:
        self.log = folder / f"container-{time.monotonic_ns()}.log"
        user = () if os.geteuid() == 0 else ("--map-root-user",)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child",
                 sys.executable, "-m", "redisq", "worker", app, *options],
                cwd=ROOT, stdout=output, stderr=output,
                env={**os.environ, "REDISQ_URL": url, "BOT_LEDGER": str(folder / "ledger"), **environment},
            )  # fmt: skip

    def ready(self, processes: int = 1) -> Container:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"no PID namespace, or no worker: {self.log.read_text()}"
            return len(re.findall("is ready", self.log.read_text())) == processes

        wait_until(is_ready, "ready")
        return self

    def children(self, pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def first(self) -> int:
        """Process 1, as it is called out here."""
        (pid,) = self.children(self.process.pid)
        return pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.first, number)

    def zombies(self) -> list[int]:
        """Dead children of process 1."""
        states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in self.children(self.first)}
        return [pid for pid, state in states.items() if state == "Z"]


Start = Callable[..., Container]


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Start]:
    started: list[Container] = []

    def start(*options: str, **environment: str) -> Container:
        started.append(Container(redis_url, tmp_path, *options, **environment))
        return started[-1]

    yield start
    for container in started:
        container.process.kill()
        container.process.wait(10)


@pytest.mark.parametrize("workers", [(), ("-w", "2")], ids=["one process", "supervisor"])
def test_sigterm_lets_handlers_finish_and_a_second_one_does_not(
    workers: tuple[str, ...], start: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    container = start("-Q", "slow", *workers).ready(2 if workers else 1)
    producer.tasks["sleep"].delay(1, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    container.signal(signal.SIGTERM)
    assert container.process.wait(20) == 0
    assert Ledger(tmp_path / "ledger").ends["1"] == 1
    container = start("-Q", "slow", *workers).ready(2 if workers else 1)
    producer.tasks["sleep"].delay(2, 60.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["2"], "started")
    container.signal(signal.SIGTERM)
    told = time.monotonic()
    wait_until(lambda: "25 s to finish" in container.log.read_text(), "draining")
    wait_until(lambda: time.monotonic() > told + TOGETHER + 0.5, "a time after which a signal is another one")
    container.signal(signal.SIGTERM)
    assert container.process.wait(10) == 0
    assert raw.zcard("slow:queue:main") == 1, "given back"


def test_sigterm_while_the_app_is_imported_is_not_lost(start: Start, tmp_path: Path) -> None:
    (tmp_path / "importing.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    container = start(app="importing:app", PYTHONPATH=str(tmp_path))
    wait_until(lambda: "importing" in container.log.read_text(), "importing")
    container.signal(signal.SIGTERM)
    assert container.process.wait(5) == 0


def test_a_child_that_died_leaves_no_zombie(start: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    container = start("-Q", "apart").ready()
    producer.tasks["dies_in_a_process"].delay(1)
    wait_until(lambda: raw.hget("apart:stats", "crashes") == b"1", "it died")
    wait_until(lambda: not container.zombies(), "no zombie", 5)
    container.signal(signal.SIGTERM)
    assert container.process.wait(20) == 0


def test_a_process_that_died_under_a_supervisor_leaves_no_zombie(
    start: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    container = start("-Q", "apart", "-w", "2").ready(2)
    # It has a child itself, which the kernel ends with it; and whose parent is process 1 then.
    assert producer.tasks["in_a_process"].delay(1) is not None
    wait_until(lambda: raw.hget("apart:stats", "processed_requests") == b"1", "a child was started")
    killed = next(pid for pid in container.children(container.first) if len(container.children(pid)) > 1)
    os.kill(killed, signal.SIGKILL)
    container.ready(3)
    wait_until(lambda: not container.zombies(), "no zombie", 5)
    container.signal(signal.SIGTERM)
    assert container.process.wait(20) == 0
