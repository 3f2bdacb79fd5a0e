"""A handler that blocks the event loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.mark.chaos
def test_a_blocked_loop_is_logged_with_the_place_where_it_hangs(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "slow").ready()
    producer.tasks["block_the_loop"].delay(1, 7.0)
    worker.wait_for_log(r"The event loop has been blocked for \d+\.\d s by:\n(.*\n)*.*in block_the_loop")
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "it went on")


@pytest.mark.chaos
def test_a_loop_that_is_blocked_past_the_hard_limit_ends_the_process_and_another_takes_over(
    start_worker: Start, producer: RedisQ, raw: redis.Redis
) -> None:
    worker = start_worker("-Q", "slow", "-w", "1", BOT_LEASE="3")
    worker.wait_for_log("is ready")
    producer.tasks["endless"].delay(2)
    wait_until(lambda: raw.zcard("slow:queue:processing") == 1, "one that has no limit runs beside it")
    producer.tasks["block_for_ever"].delay(1)
    worker.wait_for_log("blocked past the hard limit", 40)
    worker.wait_for_log(r"its event loop was stuck \(exit code 70\), starting another")
    wait_until(lambda: int(raw.hget("slow:stats", "crashes") or 0) >= 1, "its lease was taken back")
