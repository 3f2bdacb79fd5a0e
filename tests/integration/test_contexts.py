"""Each run starts in a fresh copy of the context that its worker started in: no job sees another's context variables."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from redisq import RedisQ, Worker
from redisq.app.job import Job
from redisq.broker.commands import Settlement, claim, settle
from tests.integration import context_bot

NUMBERS = range(30)
TASKS = ("in_the_loop", "in_a_thread", "in_a_process", "again", "past_its_time", "acknowledged_first")


@pytest.fixture(params=["plain", "hooked"])
def app(request: pytest.FixtureRequest, redis_url: str) -> Iterator[RedisQ]:
    context_bot.failed.clear()
    context_bot.early.clear()
    context_bot.found.clear()
    app = getattr(context_bot, request.param).at(url=redis_url)
    yield app
    app.close()


def before_the_handler(app: RedisQ) -> str:
    """What a handler in this process is to find."""
    return "its own run hook" if app.hooks.run else "the start"


def work(app: RedisQ, jobs: list[Job]) -> set[str]:
    """Run a worker until these jobs are done, in a context of its own; return what they have found."""

    async def bot() -> set[str]:
        context_bot.SEEN.set("the start")
        async with Worker(app, concurrency=4, threads=2, processes=1):
            seen = [await job.aget(timeout=20) for job in jobs if job.task != "acknowledged_first"]
        assert context_bot.SEEN.get() == "the start"
        await app.aclose()
        return {*seen, *context_bot.early}

    return copy_context().run(asyncio.run, bot())


@pytest.mark.parametrize("task", TASKS)
def test_no_job_sees_the_context_of_another(task: str, app: RedisQ) -> None:
    jobs = [app.send(task, (number,)) for number in NUMBERS]
    jobs.append(app.send("in_the_loop", (100,)))
    allowed = {before_the_handler(app)}
    if task == "in_a_process" and not app.hooks.run:
        allowed.add("nothing")  # a process of its own starts with nothing
    assert work(app, jobs) == allowed
    assert set(context_bot.found) <= {"the start"}


@pytest.mark.parametrize("crashes", [1, 2])
@pytest.mark.parametrize("task", ["in_the_loop", "in_a_thread", "in_a_process"])
def test_suspects_of_a_crash_see_no_other_context_either(task: str, crashes: int, app: RedisQ) -> None:
    keys = app.keys(app.queues[0])
    jobs = [app.send(task, (number,)) for number in range(6)]
    for _ in range(crashes):
        deliveries = app.connector.execute(claim(keys, worker="dead", limit=10, lease=30_000_000, max_crashes=9)).deliveries
        ends = [Settlement("crash", each.id, each.fence, 1, "crashed", "killed") for each in deliveries]
        app.connector.execute(settle(keys, ends))
    jobs += [app.send("in_the_loop", (number,)) for number in range(6)]
    assert work(app, jobs) <= {before_the_handler(app), "nothing"}


def test_jobs_of_all_kinds_together_see_no_other_context(app: RedisQ) -> None:
    jobs = [app.send(task, (number,)) for number in NUMBERS for task in TASKS]
    assert work(app, jobs) <= {before_the_handler(app), "nothing"}
    assert set(context_bot.found) <= {"the start"}
