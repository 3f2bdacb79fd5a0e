"""SIGTERM drains and gives back (I31); SIGKILL loses nothing (I10)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.mark.parametrize("task", ["sleep", "sleep_sync"])
def test_sigterm_lets_running_handlers_finish(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow").ready()
    producer.tasks[task].delay(1, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    assert worker.terminate() == 0
    assert Ledger(tmp_path / "ledger").ends["1"] == 1
    assert raw.hget("slow:stats", "processed_requests") == b"1"
    assert raw.zcard("slow:queue:processing") == 0


@pytest.mark.parametrize("task", ["sleep", "sleep_sync"])
def test_what_does_not_finish_in_time_is_given_back_at_once_and_free_of_charge(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "--shutdown-timeout", "0.2").ready()
    jobs = producer.tasks[task].delay_many([(number, 60.0) for number in range(3)])
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == 3, "three handlers started")
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 5
    assert [waiting.decode() for waiting in raw.zrange("slow:queue:main", 0, -1)] == [job.id for job in jobs], "back in their order"
    assert raw.zcard("slow:queue:processing") == raw.hlen("slow:leases") == raw.hlen("slow:meta") == 0
    assert raw.hget("slow:stats", "released") == b"3"


def test_a_second_signal_ends_the_worker_now(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    worker = start_worker("-Q", "slow", "--shutdown-timeout", "60").ready()
    producer.tasks["sleep"].delay(1, 60.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("handlers have 60 s to finish")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert raw.zcard("slow:queue:main") == 1


def test_a_killed_workers_message_goes_to_another_within_the_lease(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    first = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    producer.tasks["sleep"].delay(1, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    killed = time.time()
    first.kill()
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled by the other")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.starts["1"] == 2
    assert ledger.times["S", "1"] - killed < 3 + 1
    assert raw.hget("slow:stats", "crashes") == b"1"


@pytest.mark.chaos
@pytest.mark.parametrize("task", ["sleep", "sleep_sync", "block_the_loop"])
def test_a_handler_longer_than_its_lease_runs_once(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    for _ in range(2):
        start_worker("-Q", "slow", BOT_LEASE="3").ready()
    producer.tasks[task].delay(1, 7.5)
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.starts["1"] == ledger.ends["1"] == 1
    assert raw.hget("slow:stats", "crashes") is None
