"""Messages that kill their worker, each time, in the midst of a hundred innocents at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos import ledger
from tests.chaos.stage import QUEUE, Stage
from tests.integration.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

INNOCENTS, SLOTS = 1200, 100


def _ran(stage: Stage, pills: set[int]) -> tuple[dict[int, int], set[int]]:
    """How often each pill was started, and the innocents that never ended."""
    entries = ledger.read(stage.folder)
    starts = [entry.number for entry in entries if entry.kind == "S"]
    ended = {entry.number for entry in entries if entry.kind == "E"}
    sent = {entry.number for entry in entries if entry.kind == "C"}
    return {number: starts.count(number) for number in pills}, sent - pills - ended


def _dead(stage: Stage) -> int:
    return stage.ask(lambda client: client.zcard(QUEUE.named("dlq")))


def test_three_pills_among_innocents(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", str(SLOTS), "-w", "2", lease=3.0)
    pills = set()
    for _ in range(3):
        stage.producer.send([stage.seeded.uniform(20, 200) for _ in range(INNOCENTS // 4)])
        pills.add(stage.producer.send_pill())
    stage.producer.send([stage.seeded.uniform(20, 200) for _ in range(INNOCENTS // 4)])
    stage.fleet.start(1)
    seconds = stage.drain(120)
    starts, not_run = _ran(stage, pills)
    print(f"poison: started {sorted(starts.values())} times, not run {len(not_run)}, dead {_dead(stage)}, {seconds:.0f} s")
    assert starts == dict.fromkeys(pills, 3)
    assert not_run == set()
    assert _dead(stage) == 3
    assert set(stage.fleet.stop()) == {0}


def test_a_pill_that_comes_while_others_wait_to_run_apart(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", str(SLOTS), "-w", "1", lease=3.0)
    first = stage.producer.send_pill()
    stage.producer.send([100.0] * (SLOTS - 1))
    stage.fleet.start(1)
    wait_until(lambda: _dead(stage) == 1, "the first pill has run apart, and innocents wait to", 60)
    second = stage.producer.send_pill()
    seconds = stage.drain(90)
    starts, not_run = _ran(stage, {first, second})
    print(f"late pill: started {sorted(starts.values())} times, not run {len(not_run)}, dead {_dead(stage)}, {seconds:.0f} s")
    assert starts == dict.fromkeys((first, second), 3)
    # Two workers die of the second one, while innocents run apart that were there when the first one killed.
    assert not_run == set()
    assert _dead(stage) == 2
    assert set(stage.fleet.stop()) == {0}
