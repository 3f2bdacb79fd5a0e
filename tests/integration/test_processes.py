"""Tasks in processes of their own, and messages that kill their worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration import bot
from tests.integration.processes import WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(redis_url: str) -> RedisQ:
    return bot.app.at(url=redis_url)


@pytest.mark.parametrize("name", ["in_a_process", "in_a_process_async"])
def test_a_task_runs_in_a_process_of_its_own(name: str, start_worker: Start, app: RedisQ) -> None:
    worker = start_worker("-Q", "apart").ready()
    jobs = [app.send(name, (number,)) for number in range(10)]
    pids = {job.get(timeout=20) for job in jobs}
    assert worker.process.pid not in pids
    assert os.getpid() not in pids
    assert len(pids) <= (os.cpu_count() or 1)
    app.close()


def test_an_error_in_a_process_is_a_failed_attempt(start_worker: Start, app: RedisQ, raw: redis.Redis) -> None:
    start_worker("-Q", "apart").ready()
    job = app.send("fails_in_a_process", (7,))
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter")
    assert b"reason=exhausted text=ValueError: no 7" in raw.hget("apart:meta", job.id)
    app.close()


def test_a_dying_process_fails_only_its_own_task(start_worker: Start, app: RedisQ, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "apart").ready()
    dying = app.send("dies_in_a_process", (1,))
    others = [app.send("in_a_process", (number,)) for number in range(20)]
    assert all(job.get(timeout=20) for job in others)
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter after three deaths", 60)
    meta = raw.hget("apart:meta", dying.id)
    assert b"reason=crashed" in meta
    assert b"killed by SIGKILL" in meta
    assert worker.process.poll() is None
    app.close()


def test_a_process_past_its_timeout_is_killed_and_the_attempt_has_failed(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "apart").ready()
    job = app.send("too_long_in_a_process", (1,))
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter")
    assert b"TaskTimeout: timeout of 1 s" in raw.hget("apart:meta", job.id)
    assert "X 1 " in (tmp_path / "ledger").read_text(), "it was told first"
    app.close()


def test_the_children_of_a_killed_worker_die_with_it(start_worker: Start, app: RedisQ) -> None:
    worker = start_worker("-Q", "apart").ready()
    pid = app.send("in_a_process", (1,)).get(timeout=20)
    worker.kill()

    def gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or ") Z " in stat.read_text()

    wait_until(gone, "the child died")
    app.close()
