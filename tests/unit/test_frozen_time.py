"""A test that freezes the time (freezegun) hangs nowhere: not in the sandbox, not in a worker, not while it waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from freezegun import freeze_time

from redisq import RedisQ, Worker
from redisq.clocks import monotonic, steady_loop
from redisq.errors import JobTimeout
from redisq.testing import Sandbox, sandbox

THEN = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def app(seen: list[object]) -> RedisQ:
    app = RedisQ("bot", url="redis://127.0.0.1:1")

    @app.task(result_ttl=60, max_retries=2, timeout=30)
    async def in_the_loop(*values: object) -> object:
        await asyncio.sleep(0.001)
        seen.append((datetime.now(UTC), *values))
        if "bad" in values:
            raise ValueError("bad")
        return "done"

    @app.task(result_ttl=60, max_retries=2, timeout=30)
    def in_a_thread(*values: object) -> object:
        seen.append((datetime.now(UTC), *values))
        if "bad" in values:
            raise ValueError("bad")
        return "done"

    return app


@pytest.fixture
def box(app: RedisQ) -> Iterator[Sandbox]:
    with freeze_time(THEN), sandbox(app) as box:
        yield box


TASKS = pytest.mark.parametrize("task", ["in_the_loop", "in_a_thread"])


@TASKS
def test_sandbox_drains_while_the_time_is_frozen(box: Sandbox, app: RedisQ, seen: list[object], task: str) -> None:
    assert box.clock.now() == THEN, "the sandbox begins at the frozen time"
    app.tasks[task].options(countdown=3600).delay("later")
    app.tasks[task].delay("bad")
    assert box.drain(delayed=True)[::2] == (1, 1)
    assert {moment for moment, *_ in seen} == {THEN}, "handlers see the frozen time"


@TASKS
def test_wait_for_a_result_ends_while_the_time_is_frozen(box: Sandbox, app: RedisQ, task: str) -> None:
    job = app.tasks[task].delay()
    with pytest.raises(JobTimeout):
        job.get(timeout=0.05)
    box.drain()
    assert job.get(timeout=5) == "done"


@TASKS
def test_worker_beside_other_code_works_while_the_time_is_frozen(app: RedisQ, task: str) -> None:
    async def main() -> object:
        async with Worker(app):
            return await (await app.tasks[task].adelay()).aget(timeout=10)

    with freeze_time(THEN), sandbox(app), asyncio.Runner(loop_factory=steady_loop) as runner:
        assert runner.run(main()) == "done"


def test_worker_goes_on_when_a_handler_freezes_the_time(app: RedisQ) -> None:
    @app.task(result_ttl=60)
    async def freezes() -> int:
        with freeze_time(THEN):
            await asyncio.sleep(0.01)
            return datetime.now(UTC).year

    with sandbox(app) as box:
        job = freezes.delay()
        box.drain()
        assert job.get(timeout=5) == 2020


def test_frozen_dates_travel(box: Sandbox, app: RedisQ, seen: list[object]) -> None:
    app.tasks["in_the_loop"].delay(datetime.now(UTC), date.today())  # noqa: DTZ011 - a frozen date
    app.tasks["in_the_loop"].options(eta=datetime.now(UTC) + timedelta(hours=1)).delay("eta")
    assert box.drain().done == 1
    assert seen == [(THEN, THEN, THEN.date())]


def test_the_steady_clock_is_that_of_the_interpreter_and_cannot_be_frozen() -> None:
    before, ours, after = time.monotonic(), monotonic(), time.monotonic()
    assert before <= ours <= after
    with freeze_time(THEN):
        begun, frozen = monotonic(), time.monotonic()
        threading.Event().wait(0.01)
        assert monotonic() > begun
        assert time.monotonic() == frozen
