"""Workers are killed in mid-task: nothing is lost, and only what their slots held runs again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

TASKS = 20_000
KILLS = 5
SLOTS = 4


@pytest.mark.chaos
def test_five_kills_lose_nothing(
    start_worker: Callable[..., WorkerProcess], producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    seeded = random.Random(42)

    def start() -> WorkerProcess:
        return start_worker("-Q", "work", "-c", str(SLOTS), BOT_LEASE="3")

    producer.tasks["short"].delay_many([(number,) for number in range(TASKS)])
    workers = [start() for _ in range(3)]
    for worker in workers:
        worker.ready()

    def done() -> int:
        return int(raw.hget("work:stats", "processed_requests") or 0)

    for kill in range(1, KILLS + 1):
        wait_until(lambda at=kill: done() > at * TASKS // (KILLS + 2), f"work for kill {kill}", 60)
        victim = seeded.randrange(len(workers))
        workers[victim].kill()
        workers[victim] = start()
    began = time.monotonic()
    wait_until(lambda: raw.hlen("work:messages") == 0, "all done", 90)
    assert all(worker.process.poll() is None for worker in workers), "no worker ended unasked"
    ledger = Ledger(tmp_path / "ledger")
    lost = [number for number in range(TASKS) if not ledger.ends[str(number)]]
    interrupted = sum((ledger.starts - ledger.ends).values())
    again = sum(ledger.starts.values()) - TASKS
    print(f"lost {len(lost)}, again {again}, in flight at a kill {interrupted}, drained {time.monotonic() - began:.1f} s after")
    assert lost == []
    # How few of them had ended: tests/chaos/test_standard.py, with kills enough to count.
    assert interrupted <= again <= SLOTS * KILLS
    assert raw.zcard("work:queue:dlq") == raw.zcard("work:queue:retry") == 0
