"""Messages under suspicion of having killed workers: they run apart, one at a time, and only what runs is held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until


def test_what_runs_apart_and_what_waits_to_are_not_charged_with_the_death_of_the_worker(
    start_worker: Callable[..., WorkerProcess], producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    jobs = producer.tasks["sleep"].delay_many([(number, 1.0) for number in range(5)])
    raw.hset("slow:meta", mapping={job.id: "crashes=2" for job in jobs})
    worker = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    wait_until(lambda: Ledger(tmp_path / "ledger").starts, "one runs")
    wait_until(lambda: raw.zcard("slow:queue:processing") == 1, "and only that one is held", 5)
    worker.kill()
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"5", "all run", 60)
    assert raw.zcard("slow:queue:dlq") == 0
    assert raw.hget("slow:stats", "crashes") == b"1"
