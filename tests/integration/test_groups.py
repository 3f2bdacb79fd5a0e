"""Queues that share their limits, with real worker processes on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from redisq import RedisQ
from tests.integration import gated
from tests.integration.operator import Operator
from tests.integration.processes import WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
Lines = Callable[[], list[list[str]]]

#: What is counted as it is leased starts a little later, more or less.
SLACK = 0.15


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = gated.app.at(url=redis_url)
    yield app
    app.close()


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, app="tests.integration.gated:app")


@pytest.mark.parametrize("together", [True, False])
def test_a_backlog_leaves_the_other_queue_its_turns_and_both_keep_the_limit(
    app: RedisQ, start: Start, lines: Lines, together: bool
) -> None:
    if together:
        start("-Q", "broadcasts,answers").ready()
    else:
        start("-Q", "broadcasts").ready()
        start("-Q", "answers").ready()
    app.tasks["broadcast"].delay_many([(number,) for number in range(200)])
    wait_until(lambda: len(lines()) >= 5, "the backlog runs")
    app.tasks["answer"].delay_many([(number,) for number in range(10)])
    answers = lambda: [line for line in lines() if line[1].startswith("answer:")]  # noqa: E731
    wait_until(lambda: len(answers()) == 10, "so do the answers", 5)
    times = sorted(float(line[3]) for line in lines())
    for first in range(len(times)):
        for last in range(first + 1, len(times)):
            assert last - first <= 20 * (times[last] - times[first] + SLACK) + 1, "more than 20 a second together"


def test_a_slot_goes_over_from_queue_to_queue(app: RedisQ, start: Start, lines: Lines) -> None:
    start("-Q", "answers").ready()
    start("-Q", "broadcasts").ready()
    app.tasks["paint"].delay(0.5)
    wait_until(lambda: len(lines()) == 1, "it is taken")
    app.tasks["draw"].delay()
    wait_until(lambda: len(lines()) == 3, "it is free")
    assert [(kind, what) for kind, what, *_ in lines()] == [("S", "paint"), ("E", "paint"), ("S", "draw")]
    ended, began = (float(line[3]) for line in lines()[1:])
    assert began - ended < 0.5


@pytest.mark.chaos
def test_the_slot_of_a_queue_whose_only_worker_was_killed_comes_free(app: RedisQ, start: Start, lines: Lines) -> None:
    holder = start("-Q", "answers", BOT_LEASE="3").ready()
    start("-Q", "broadcasts", BOT_LEASE="3").ready()
    app.tasks["paint"].delay(60)
    wait_until(lambda: len(lines()) == 1, "it is taken")
    app.tasks["draw"].delay()
    wait_until(lambda: any(state.waiting for state in app.control.limits("broadcasts")), "who wants it waits")
    holder.kill()
    began = time.monotonic()
    wait_until(lambda: len(lines()) == 2, "the lease ends, and with it the slot", 10)
    assert time.monotonic() - began < 3 + 2


def test_an_operator_speaks_to_one_queue_and_means_the_group(
    app: RedisQ, start: Start, operator: Operator, raw: redis.Redis, lines: Lines
) -> None:
    start("-Q", "answers,broadcasts").ready()
    app.control.pause("answers", limit="shared")
    app.tasks["broadcast"].delay(1)
    wait_until(lambda: any(state.waiting for state in app.control.limits("broadcasts")), "it waits")
    listed = operator.run("limits", "list", "-A", "tests.integration.gated:app", "-Q", "answers", "-Q", "broadcasts")
    assert [line.split()[:3] for line in listed.stdout.splitlines() if " shared " in line] == [
        ["answers", "platform", "shared"],
        ["broadcasts", "platform", "shared"],
    ]
    assert "shared" in operator.run("status", "-Q", "broadcasts").stdout
    app.control.resume("answers", limit="shared")
    wait_until(lambda: len(lines()) == 1, "it goes on", 5)
