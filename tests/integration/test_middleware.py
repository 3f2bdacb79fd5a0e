"""Hooks and contexts in real worker processes, in each kind of pool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from redisq import RedisQ
from redisq.app.progress import Progress
from tests.integration import hooked
from tests.integration.operator import Operator
from tests.integration.processes import WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = hooked.app.at(url=redis_url)
    yield app
    app.close()


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, app="tests.integration.hooked:app")


POOLS = ["in_the_loop", "in_a_thread", "in_a_process", "in_a_process_async", "shared_in_a_process"]


@pytest.mark.parametrize("name", POOLS)
def test_hooks_and_context_are_the_same_in_each_pool(
    name: str, start: Start, app: RedisQ, lines: Callable[..., list[list[str]]]
) -> None:
    worker = start().ready()
    job = app.send(name)
    *known, worker_name, here, pid = job.get(timeout=20)
    assert known == [job.id, name, "hooked", 1]
    assert worker_name
    assert here == job.id
    assert (pid == worker.process.pid) == (name in ("in_the_loop", "in_a_thread"))
    wait_until(lambda: job.progress() == Progress(2, 2, f"hook of {name}", 1), "the last word on its progress")
    wait_until(lambda: any(line[0] == "settle" for line in lines()), "all hooks")
    assert [line[0] for line in lines()] == ["claim", "before", "after", "settle"]
    where = {line[0]: int(line[-1]) for line in lines()}
    assert where["before"] == where["after"] == pid
    assert where["claim"] == where["settle"] == worker.process.pid


@pytest.mark.chaos
def test_hooks_and_context_in_quarantine(start: Start, app: RedisQ, lines: Callable[..., list[list[str]]]) -> None:
    job = app.send("dies_twice")
    supervisor = start("-w", "1", BOT_LEASE="3")
    known = job.get(timeout=60)
    assert known[:4] == [job.id, "dies_twice", "hooked", 1]
    before = [line[-1] for line in lines() if line[0] == "before"]
    assert len(before) == 3
    assert before[-1] == str(known[-1])
    wait_until(lambda: job.progress() == Progress(2, 2, "hook of dies_twice", 1), "its progress")
    # A killed supervisor would leave its worker behind for a while, to take the next test's messages.
    assert supervisor.terminate() == 0


@pytest.mark.parametrize("name", ["goes_on", "goes_on_in_a_process"])
def test_progress_is_seen_while_it_runs_and_a_stop_is_told(
    name: str, start: Start, app: RedisQ, operator: Operator, lines: Callable[..., list[list[str]]]
) -> None:
    worker = start("--shutdown-timeout", "0.1").ready()
    job = app.send(name)
    wait_until(job.progress, "progress, while it runs")
    assert job.progress() == Progress(1, 3, "first", 1)
    assert operator.json("inspect", job.id)["progress"] == {"done": 1.0, "total": 3.0, "note": "first", "attempt": 1}
    assert re.search(r"progress +1 of 3, first", operator.text("inspect", job.id))
    assert worker.terminate() == 0
    assert ["settle", job.id, "release", str(worker.process.pid)] in lines()


def test_a_lost_lease_is_told_once(start: Start, app: RedisQ, raw: redis.Redis, lines: Callable[..., list[list[str]]]) -> None:
    worker = start(BOT_LEASE="3").ready()
    job = app.send("goes_on")
    wait_until(lambda: any(line[0] == "going" for line in lines()), "it runs")
    raw.hset("hooked:leases", job.id, "999999 0 another-worker")
    wait_until(lambda: ["lost", job.id, str(worker.process.pid)] in lines(), "it is told")
    # Leave nothing that runs: the message is another's, who is not there.
    raw.delete("hooked:queue:processing")
    assert worker.terminate() == 0
    assert sum(line[0] == "lost" for line in lines()) == 1
    raw.flushall()


def test_connections_that_are_cut_cost_no_job(start: Start, app: RedisQ, raw: redis.Redis) -> None:
    start().ready()
    jobs = [app.send("in_a_thread") for _ in range(5)]
    raw.client_kill_filter(_type="normal", skipme=True)
    assert all(job.get(timeout=30)[0] == job.id for job in jobs)
