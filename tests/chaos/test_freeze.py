"""A worker is frozen past its lease and thawed: what it says then of messages that others have run is refused."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.chaos.stage import Stage
from tests.integration.processes import WorkerProcess, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

FREEZES = 5


def _freeze_one(stage: Stage) -> tuple[WorkerProcess, set[int], float]:
    """Freeze a worker in the midst of handlers; what it runs, and since when."""
    while True:
        victim = stage.fleet.one_at_work(stage.seeded)
        began = time.monotonic()
        victim.signal(signal.SIGSTOP)
        wait_until(partial(stage.fleet.is_frozen, victim), "frozen")
        if held := stage.running_in(victim):
            return victim, held, began
        victim.signal(signal.SIGCONT)


def test_workers_frozen_past_their_leases(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", "4", lease=3.0)
    stage.fleet.start(3)
    stage.producer.keep_sending(5, 40, ahead=100)
    for _ in range(FREEZES):
        victim, held, began = _freeze_one(stage)
        try:
            wait_until(lambda held=held: all(map(stage.ended, held)), "others ran what it held", 30)
        finally:
            victim.signal(signal.SIGCONT)
        stage.note_fault("freeze", victim, began)
        wait_until(lambda victim=victim, held=held: not held & stage.running_in(victim), "it is through with them", 10)
    stage.producer.stop()
    stage.drain(60)
    verdict = stage.verdict("freeze")
    frozen = {fault.writer for fault in stage.faults}
    assert verdict.unexplained == []
    assert verdict.overlapping
    assert all(frozen & {first.writer, second.writer} for first, second in verdict.overlapping)
    assert all(run.writer in frozen for run in verdict.abandoned)
    assert len(verdict.duplicates) == stage.counted("stale"), "each second end was refused and counted"
    assert stage.counted("dlq_messages") == 0
