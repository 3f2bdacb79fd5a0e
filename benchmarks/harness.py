"""What all benchmarks share: a private server, worker processes and their CPU time, waiting.

A benchmark works inside `with Bench() as bench:`; whatever it started has ended when the block is left.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeVar

import psutil
import redis

from tests.servers import RedisServer

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
#: Between two looks at a counter, seconds.
POLL = 0.005


class Workers:
    """Worker processes of one kind, with their children."""

    def __init__(self, command: Sequence[str], count: int, log: Path) -> None:
        self.log = log
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        self.started = time.monotonic()
        with log.open("wb") as output:
            self._processes = [
                psutil.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output, start_new_session=True)
                for _ in range(count)
            ]

    def tree(self) -> list[psutil.Process]:
        """All processes, children too."""
        found: list[psutil.Process] = []
        for process in self._processes:
            found.append(process)
            try:
                found += process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
        return found

    def check(self) -> None:
        """Fail, with what it said last, when a worker has ended."""
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(f"a worker ended by itself:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-3000:]

    def rss(self) -> int:
        """Resident bytes; pages shared between the processes count once for each."""
        return sum(process.memory_info().rss for process in self.tree())

    def stop(self, grace: float = 15) -> None:
        """Ask, wait, then kill what is left."""
        tree = self.tree()
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        psutil.wait_procs(self._processes, timeout=grace)
        for process in tree:
            if process.is_running():
                process.kill()
        psutil.wait_procs(tree, timeout=5)


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds that these processes have used."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def machine_busy() -> float:
    """CPU seconds that all cores together were busy since boot."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


@dataclass(frozen=True, slots=True)
class Sample:
    """What has been done and used at one moment; only differences mean something. All but `done` in seconds."""

    done: int
    at: float
    worker: float
    redis: float
    own: float
    machine: float


@dataclass(frozen=True, slots=True)
class Window:
    """The time between two samples."""

    first: Sample
    last: Sample

    @property
    def seconds(self) -> float:
        return self.last.at - self.first.at

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return (self.last.done - self.first.done) / self.seconds

    @property
    def worker_us(self) -> float:
        """CPU microseconds a task of the workers."""
        return self._us(self.last.worker - self.first.worker)

    @property
    def redis_us(self) -> float:
        """CPU microseconds a task of Redis."""
        return self._us(self.last.redis - self.first.redis)

    @property
    def own_us(self) -> float:
        """CPU microseconds a task of this process."""
        return self._us(self.last.own - self.first.own)

    @property
    def others(self) -> float:
        """Cores that programs outside the benchmark kept busy."""
        first, last = self.first, self.last
        ours = last.worker - first.worker + last.redis - first.redis + last.own - first.own
        return max(0.0, (last.machine - first.machine - ours) / self.seconds)

    def _us(self, seconds: float) -> float:
        return seconds / (self.last.done - self.first.done) * 1e6


class Bench:
    """A private Redis without persistence, a folder, and workers. Leaves nothing behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redisq-bench-")))
            server = RedisServer()
            stack.callback(server.close)
            self.url = server.url()
            self.stamps = self.folder / "stamps"
            server.start()
            self.redis = redis.Redis.from_url(self.url, protocol=2)
            stack.callback(self.redis.close)
            os.environ["REDISQ_URL"], os.environ["BENCH_STAMPS"] = self.url, str(self.stamps)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def workers(self, command: Sequence[str], count: int = 1) -> Iterator[Workers]:
        """Run `count` processes of this command."""
        workers = Workers(command, count, self.folder / "worker.log")
        try:
            yield workers
        finally:
            workers.stop()

    def clear(self, patterns: Sequence[str]) -> None:
        """Delete the keys that match, at once rather than behind the next measurement's back."""
        for pattern in patterns:
            for key in self.redis.scan_iter(pattern, count=1000):
                self.redis.delete(key)

    def redis_cpu(self) -> float:
        """CPU seconds that the server has used."""
        cpu: dict[str, float] = self.redis.info("cpu")
        return sum(cpu[f"used_cpu_{kind}"] for kind in ("user", "sys", "user_children", "sys_children"))

    def sample(self, done: int, processes: Sequence[psutil.Process] = ()) -> Sample:
        """All clocks now; `done` was read just before."""
        return Sample(done, time.monotonic(), cpu_of(processes), self.redis_cpu(), time.process_time(), machine_busy())

    def take_stamps(self, count: int, workers: Workers, timeout: float) -> list[float]:
        """Wait until handlers have written so many stamps; return and forget them. Late ones are missing."""
        lines: list[str] = []

        def enough() -> bool:
            nonlocal lines
            workers.check()
            lines = self.stamps.read_text().splitlines() if self.stamps.exists() else []
            return len(lines) >= count

        wait_until(enough, timeout, f"{count} stamps", workers, every=0.05)
        os.truncate(self.stamps, 0)
        return [float(line) for line in lines]


def wait_until(condition: Callable[[], T], timeout: float, what: str, workers: Workers | None = None, every: float = POLL) -> T:
    """Return the first true answer of `condition`, asked every few milliseconds.

    Raises:
        TimeoutError: There was none in time; tells what the worker said last.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s\n{workers.last_words() if workers else ''}")
        time.sleep(every)
    return answer


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(main: Callable[[], Any]) -> None:
    """Run a benchmark's `main` such that SIGTERM and SIGHUP also clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    main()
