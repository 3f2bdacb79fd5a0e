"""A lease that is another's, or nobody's: what runs under it is stopped as far as that is possible, what waits is not begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import redis

from redisq import RedisQ
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, has_died, wait_until

Start = Callable[..., WorkerProcess]


def test_a_handler_in_a_process_is_killed(start_worker: Start, redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    app = bot.app.at(url=redis_url)
    worker = start_worker("-Q", "apart", BOT_LEASE="3").ready()
    app.send("sleep_in_a_process", (1,))
    wait_until(lambda: Ledger(tmp_path / "ledger").pids.get("1"), "started")
    give_to_another(raw, "apart")
    worker.wait_for_log("Lost the lease of task sleep_in_a_process")
    wait_until(lambda: has_died(Ledger(tmp_path / "ledger").pids["1"]), "its process is killed", 5)
    app.send("in_a_process", (2,)).get(timeout=20)
    assert "SIGKILL" not in worker.text(), "that was no crash"
    app.close()


def test_a_handler_in_a_thread_is_told(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    worker = start_worker("-Q", "slow", "-t", "1", BOT_LEASE="3").ready()
    producer.tasks["until_told"].delay(1)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    give_to_another(raw, "slow")
    wait_until(lambda: ("X", "1") in Ledger(tmp_path / "ledger").times, "the handler was told")
    producer.tasks["sleep_sync"].delay(3, 0.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["3"], "the thread is free again")
    assert "failed" not in worker.text()


def give_to_another(raw: redis.Redis, queue: str) -> None:
    """As if a claim of another worker had taken back all that is leased, and had got it."""
    for job_id, record in raw.hgetall(f"{queue}:leases").items():
        fence, place, *_ = record.split(b" ")
        raw.hset(f"{queue}:leases", job_id, b"%d %s another" % (int(fence) + 1, place))
