"""The task queues that are measured, each behind the same few methods.

A peer is made inside `with Bench()`, which says in the environment where Redis is; only then is its app imported.
"""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar

from benchmarks.harness import Bench

#: Lanes that the tasks with lanes are spread over.
LANES = 1_000

#: Messages that one `delay_many` takes when a large backlog is made: bounds the memory of this process.
CHUNK = 20_000


class Producer(ABC):
    """Something that puts no-op tasks into a queue."""

    label: str
    #: What it leaves in Redis and `clear` deletes.
    patterns: ClassVar[tuple[str, ...]]
    #: Enqueues one no-op task.
    enqueue: Callable[[], object]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def enqueue_many(self, count: int) -> None:
        """Enqueue so many no-op tasks, the fastest way that it has."""
        for _ in range(count):
            self.enqueue()

    def clear(self) -> None:
        """Empty the queue and forget the counters. Not while a worker runs."""
        self.bench.clear(self.patterns)


class Peer(Producer):
    """A producer with a worker."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of one worker process."""

    @abstractmethod
    def done(self) -> int:
        """How many of the tasks of `enqueue_many` have ended since `clear`."""

    @abstractmethod
    def stamp(self, clock: str, since: float, due: float | None = None) -> None:
        """Enqueue a task that notes how long ago `since` was; due at this wall-clock time, or now."""


class RedisqPeer(Peer):
    """redisq, one worker process, messages acknowledged after the handler."""

    patterns = ("bench:*",)

    def __init__(self, bench: Bench, *, sync: bool = False, concurrency: int = 100) -> None:
        super().__init__(bench)
        module = import_module("benchmarks.apps.redisq_app")
        self._noop = module.noop_sync if sync else module.noop
        self._stamp = module.stamp
        self._concurrency = concurrency
        self.enqueue = self._noop.delay
        self.label = f"redisq {'threads ' if sync else ''}-c {concurrency}"

    def enqueue_many(self, count: int) -> None:
        for at in range(0, count, CHUNK):
            self._noop.delay_many([()] * min(CHUNK, count - at))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "redisq", "worker", "benchmarks.apps.redisq_app:app", "-c", str(self._concurrency)]

    def done(self) -> int:
        return int(self.bench.redis.hget("bench:stats", "processed_requests") or 0)

    def stamp(self, clock: str, since: float, due: float | None = None) -> None:
        task = self._stamp if due is None else self._stamp.options(eta=datetime.fromtimestamp(due, UTC))
        task.delay(clock, since)


class LanesPeer(RedisqPeer):
    """The same with an argument that names a lane; `limits`: and two limits that never refuse."""

    def __init__(self, bench: Bench, *, limits: bool = False, concurrency: int = 100) -> None:
        super().__init__(bench, concurrency=concurrency)
        module = import_module("benchmarks.apps.redisq_app")
        self._task = module.noop_limited if limits else module.noop_lane
        self.label += f", {LANES:,} lanes{' and two limits' if limits else ''}"

    def enqueue_many(self, count: int) -> None:
        for at in range(0, count, CHUNK):
            self._task.delay_many([(number % LANES,) for number in range(at, min(at + CHUNK, count))])


class CeleryPeer(Peer):
    """Celery with acks_late and without results, gossip, mingle and heartbeats."""

    patterns = ("bench", "unacked*")

    def __init__(self, bench: Bench, pool: str = "solo") -> None:
        super().__init__(bench)
        self._module = import_module("benchmarks.apps.celery_app")
        self._pool = {"solo": ["-P", "solo"], "prefork": ["-P", "prefork", "-c", "2"]}[pool]
        self._filled = 0
        self.enqueue = self._module.noop.delay
        self.label = f"celery {pool}"

    def enqueue_many(self, count: int) -> None:
        super().enqueue_many(count)
        self._filled += count

    def clear(self) -> None:
        super().clear()
        self._filled = 0

    def command(self) -> list[str]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
        return [sys.executable, "-m", "celery", "-A", "benchmarks.apps.celery_app", "worker", *self._pool, *quiet]

    def done(self) -> int:
        pipe = self.bench.redis.pipeline()
        pipe.llen("bench")
        pipe.hlen("unacked")
        return self._filled - int(sum(pipe.execute()))

    def stamp(self, clock: str, since: float, due: float | None = None) -> None:
        eta = None if due is None else datetime.fromtimestamp(due, UTC)
        self._module.stamp.apply_async((clock, since), eta=eta)


class RqProducer(Producer):
    """RQ."""

    label = "rq"
    patterns = ("rq:*",)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        module: Any = import_module("benchmarks.apps.rq_app")
        self.enqueue = lambda: module.queue.enqueue(module.noop)


class DramatiqProducer(Producer):
    """Dramatiq."""

    label = "dramatiq"
    patterns = ("dramatiq:*",)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.enqueue = import_module("benchmarks.apps.dramatiq_app").noop.send


class BareProducer(Producer):
    """No queue at all: redis-py calling a script of two writes. What one round trip costs."""

    label = "bare EVALSHA"
    patterns = ("bare:*",)
    _SCRIPT = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        client, numbers = bench.redis, itertools.count()
        sha = client.script_load(self._SCRIPT)

        def enqueue() -> None:
            number = next(numbers)
            client.evalsha(sha, 2, "bare:messages", "bare:main", f"{number:016}", b"x" * 10, number)

        self.enqueue = enqueue
