"""Messages that kill their worker, each time, in the midst of a hundred innocents at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos import ledger
from tests.chaos.stage import QUEUE, Stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

INNOCENTS, SLOTS = 1200, 100


def test_three_pills_among_innocents(set_up: Callable[..., Stage]) -> None:
    stage = set_up("-c", str(SLOTS), "-w", "2", lease=3.0)
    pills = set()
    for _ in range(3):
        stage.producer.send([stage.seeded.uniform(20, 200) for _ in range(INNOCENTS // 4)])
        pills.add(stage.producer.send_pill())
    stage.producer.send([stage.seeded.uniform(20, 200) for _ in range(INNOCENTS // 4)])
    stage.fleet.start(1)
    stage.drain(120)
    entries = ledger.read(stage.folder)
    starts = [entry.number for entry in entries if entry.kind == "S"]
    assert {number: starts.count(number) for number in pills} == dict.fromkeys(pills, 3)
    dead = stage.ask(lambda client: set(client.zrange(QUEUE.named("dlq"), 0, -1)))
    innocent = {entry.number for entry in entries if entry.kind == "C"} - pills
    ended = {entry.number for entry in entries if entry.kind == "E"}
    assert sorted(innocent - ended) == [], "each innocent ran"
    assert len(dead) == 3, "no innocent is a dead letter"
