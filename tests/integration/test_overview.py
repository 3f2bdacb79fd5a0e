"""What operators ask of several queues at once is the same from sync and from async code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from redisq.app.waiting import arun, run
from redisq.broker import overview, sweep
from redisq.broker.queues import Steps, known_queues
from tests.integration.operator import Stage

Ask = Callable[[Steps[Any]], Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, stage: Stage) -> Ask:
    async def in_a_loop(steps: Steps[Any]) -> Any:
        result = await arun(steps, stage.app.async_connector)
        await stage.app.aclose()
        return result

    if request.param == "sync":
        return lambda steps: run(steps, stage.app.connector)
    return lambda steps: asyncio.run(in_a_loop(steps))


def test_queues_places_and_dead_letters(ask: Ask, stage: Stage) -> None:
    dead, waits = stage.dead("a"), stage.waiting("b")
    queues = ask(known_queues())
    assert [keys.queue for keys in queues] == ["a", "b"]
    assert [(view.waiting, view.dead) for _, view in ask(overview.overview(queues))] == [(0, 1), (1, 0)]
    (place,) = ask(overview.places(queues, waits))
    assert (place.keys.queue, place.found.state) == ("b", "waiting")
    assert ask(overview.finished(queues, waits)) is None
    _, page, total = ask(overview.dead_letters(queues, offset=0, limit=5))
    assert ([row.id for _, row in page], total) == ([dead], 1)


def test_without_queues_nothing_is_asked(ask: Ask) -> None:
    assert ask(known_queues()) == ask(overview.overview([])) == ask(overview.places([], "x")) == []
    assert ask(overview.finished([], "x")) is None


def test_sweeps(ask: Ask, stage: Stage) -> None:
    keys = stage.app.keys("a")
    for _ in range(2):
        stage.dead("a")
    assert ask(sweep.replay_all(keys)) == (2, {})
    assert ask(sweep.remove_all(keys, ("waiting",), "purged")) == 2
    assert ask(sweep.remove_all(keys, ("waiting", "dead"), "purged")) == 0
