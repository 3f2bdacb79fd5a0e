"""An idle worker freezes with the hint in its hand: the others look by themselves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
LEASE = 3


def blocked(raw: redis.Redis) -> int:
    """How many workers wait for work."""
    return sum(each["cmd"] == "bzpopmin" and "b" in each["flags"] for each in raw.client_list())


def pids(ledger: Path) -> dict[str, str]:
    rows = [line.split(" ") for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return {row[1]: row[2] for row in rows if row[0] == "S"}


@pytest.mark.chaos
@pytest.mark.parametrize("options", [{}, {"countdown": 1.5}], ids=["now", "delayed"])
def test_a_token_that_a_frozen_worker_took_keeps_the_other_no_longer_than_a_block(
    options: dict[str, Any], start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    # With several queues a worker claims when it has read which one woke it.
    workers = [start_worker("-Q", "work,slow", BOT_LEASE=str(LEASE)).ready() for _ in range(2)]
    for number, frozen in enumerate(workers * 2):
        wait_until(lambda: blocked(raw) == 2, "both wait")
        frozen.signal(signal.SIGSTOP)
        sent = time.time()
        producer.tasks["short"].options(**options).delay(number)
        wait_until(lambda number=number: Ledger(tmp_path / "ledger").starts[str(number)], "started by the other", 10)
        took = Ledger(tmp_path / "ledger").times["S", str(number)] - sent - options.get("countdown", 0.0)
        assert -0.1 < took < 2, f"it took {took:.2f} s"
        assert pids(tmp_path / "ledger")[str(number)] != str(frozen.process.pid)
        frozen.signal(signal.SIGCONT)


@pytest.mark.chaos
def test_what_a_worker_of_one_queue_claimed_as_it_froze_is_taken_over_within_the_lease(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    # Its claim is on its way behind the blocking read: the server carries it out, whoever hears of it.
    workers = [start_worker("-Q", "work", BOT_LEASE=str(LEASE)).ready() for _ in range(2)]
    for number, frozen in enumerate(workers):
        wait_until(lambda: blocked(raw) == 2, "both wait")
        frozen.signal(signal.SIGSTOP)
        sent = time.time()
        producer.tasks["short"].delay(number)
        wait_until(lambda number=number: Ledger(tmp_path / "ledger").starts[str(number)], "started by the other", 10)
        took = Ledger(tmp_path / "ledger").times["S", str(number)] - sent
        assert took < LEASE + 1.5, f"it took {took:.2f} s"
        # Its one claim is over: from now on nothing goes there.
        sent = time.time()
        producer.tasks["short"].delay(number + 10)
        wait_until(lambda number=number: Ledger(tmp_path / "ledger").starts[str(number + 10)], "started by the other", 10)
        if took > 1:
            took = Ledger(tmp_path / "ledger").times["S", str(number + 10)] - sent
            assert took < 2, f"it took {took:.2f} s"
        frozen.signal(signal.SIGCONT)
