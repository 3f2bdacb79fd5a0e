"""Redis is away for longer than a lease, and tasks last longer than one: nobody died, so nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.stage import Stage
from tests.integration.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_outage_longer_than_the_lease(how: str, set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", "4", lease=3.0)
    stage.fleet.start(3)
    # Two rounds: the first is running when Redis goes, half of it ends while it is away.
    stage.producer.send([2000.0] * 6 + [6000.0] * 18)
    wait_until(lambda: stage.started() == 12, "all slots are taken")
    stage.restart_redis(how, away=4.0)
    stage.drain(60)
    verdict = stage.verdict(f"outage, {how}")
    assert verdict.confirmed == 24
    assert verdict.duplicates == []
    assert verdict.interrupted == []
    lost = [log.count("Lost Redis connection") for log in stage.fleet.logs()]
    # A worker with nothing to say in all that time does not notice.
    assert max(lost) == 1
    assert [log.count("Redis connection is back") for log in stage.fleet.logs()] == lost


def test_tasks_of_two_leases_and_a_half(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", "4", lease=3.0)
    stage.fleet.start(3)
    stage.producer.send([7500.0] * 24)
    stage.drain(60)
    verdict = stage.verdict("long")
    assert verdict.confirmed == 24
    assert verdict.duplicates == []
    assert verdict.interrupted == []
