"""Handlers that take too long, in real worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.mark.parametrize("task", ["too_long", "too_long_sync"])
def test_a_handler_past_its_timeout_is_stopped_and_the_attempt_has_failed(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow").ready()
    job = producer.tasks[task].delay(1)
    wait_until(lambda: raw.zcard("slow:queue:dlq") == 1, "a dead letter")
    meta = raw.hget("slow:meta", job.id)
    assert b"reason=exhausted" in meta
    assert b"TaskTimeout: timeout of 0.5 s" in meta
    assert "passed its timeout of 0.5 s" in worker.text()
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.times["X", "1"] - ledger.times["S", "1"] < 2, "the handler was told, and could tidy up"
    assert not ledger.ends


@pytest.mark.parametrize("task", ["soft", "soft_sync"])
def test_a_handler_past_its_soft_timeout_may_still_return(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "slow").ready()
    producer.tasks[task].delay(1)
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled as done")
    assert Ledger(tmp_path / "ledger").ends["1"] == 1


@pytest.mark.chaos
@pytest.mark.parametrize("task", ["stubborn", "stubborn_sync"])
def test_a_handler_that_does_not_stop_loses_its_slot_and_its_message_goes_on(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "-t", "2", "-c", "2").ready()
    producer.tasks[task].delay(1, 12.0)
    wait_until(lambda: raw.zcard("slow:queue:dlq") == 1, "settled as failed while it still runs")
    assert "does not stop" in worker.text()
    # One slot is left, and works.
    producer.tasks["sleep_sync" if "sync" in task else "sleep"].delay_many([(number, 0.01) for number in range(2, 5)])
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"3", "the others ran")
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"] == 1, "it ended after all")
    assert worker.terminate() == 0


@pytest.mark.chaos
@pytest.mark.parametrize("task", ["stubborn", "stubborn_sync"])
@pytest.mark.parametrize("first", ["lost, then told to stop", "told to stop, then lost"])
def test_a_lost_slot_does_not_hold_up_the_end_of_its_worker(
    task: str, first: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "--shutdown-timeout", "60").ready()
    producer.tasks[task].delay(1, 90.0)
    producer.tasks["sleep"].delay(2, 12.0)
    wait_until(lambda: raw.zcard("slow:queue:processing") == 2, "both run")
    if first == "lost, then told to stop":
        worker.wait_for_log("does not stop")
        wait_until(lambda: raw.zcard("slow:queue:dlq") == 1, "settled as failed")
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert raw.zcard("slow:queue:dlq") == 1
    assert Ledger(tmp_path / "ledger").ends == {"2": 1}, "the drain waited for what is well"


def test_a_worker_that_was_frozen_past_its_lease_cancels_what_it_lost(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    frozen = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    producer.tasks["long_at_first"].delay(1)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"] == 1, "started")
    frozen.signal(signal.SIGSTOP)
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"] == 2, "taken by the other")
    frozen.signal(signal.SIGCONT)
    frozen.wait_for_log("Lost the lease of task long_at_first")
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled by the other")
    assert Ledger(tmp_path / "ledger").ends["1"] == 1
    assert frozen.terminate() == 0
