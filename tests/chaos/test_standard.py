"""Workers are killed in mid-burst, and Redis restarts: nothing is lost, and next to nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.stage import Stage
from tests.integration.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

TASKS, KILLS = 20_000, 30


def test_thirty_kills_and_two_restarts_of_redis(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", "4", lease=10.0)
    faults = [stage.kill_one] * KILLS
    faults.insert(KILLS // 3, lambda: stage.restart_redis("stop"))
    faults.insert(2 * KILLS // 3, lambda: stage.restart_redis("kill"))
    stage.fleet.start(4)
    stage.producer.keep_sending(1, 5, ahead=1000, total=TASKS)
    for number, fault in enumerate(faults, 1):
        wait_until(
            lambda at=number: stage.counted("processed_requests") > at * TASKS // (len(faults) + 2), f"work for {number}", 60
        )
        fault()
    stage.drain(90)
    verdict = stage.verdict("standard")
    assert verdict.confirmed >= TASKS
    assert verdict.unexplained == []
    assert verdict.abandoned == []
    assert len(verdict.duplicates) <= 6
    assert verdict.silence < 2 * stage.lease + 3
    assert stage.counted("dlq_messages") == 0
