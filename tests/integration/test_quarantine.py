"""Messages under suspicion of having killed workers: they run apart, one at a time, and only what runs is held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until


@pytest.mark.chaos
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


def test_a_task_that_is_not_found_by_its_functions_name_runs_apart_all_the_same(
    start_worker: Callable[..., WorkerProcess], redis_url: str, raw: redis.Redis
) -> None:
    app = bot.app.at(url=redis_url)
    job = app.send("hidden", (7,))
    raw.hset("slow:meta", job.id, "crashes=2")
    worker = start_worker("-Q", "slow").ready()
    assert job.get(timeout=20) != worker.process.pid
    assert "it runs apart" in worker.text()
    app.close()


def test_a_suspect_whose_module_no_other_process_can_import_runs_in_the_worker(
    start_worker: Callable[..., WorkerProcess], redis_url: str, raw: redis.Redis
) -> None:
    app = bot.app.at(url=redis_url)
    jobs = [app.send("hidden", (number,)) for number in (7, 8)]
    raw.hset("slow:meta", mapping={job.id: "crashes=2" for job in jobs})
    worker = start_worker("-Q", "slow", BOT_FAILS_APART="the port is taken").ready()
    assert [job.get(timeout=20) for job in jobs] == [worker.process.pid] * 2
    assert worker.text().count("is given back, to run in the worker: module tests.integration.bot cannot be imported") == 1, (
        "it is tried only once"
    )
    app.close()
