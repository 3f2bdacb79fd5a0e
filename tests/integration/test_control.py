"""Any process can ask the workers: who is there, what runs, cancel this, stop; and pause a queue."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from redisq import RedisQ
from redisq.broker import commands
from redisq.cli.main import main
from redisq.errors import NoResult
from redisq.states import State
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(redis_url: str) -> RedisQ:
    return bot.app.at(url=redis_url)


def cli(redis_url: str, *arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments, "--url", redis_url])
    assert result.exit_code == 0, result.output
    return result.output


def test_workers_are_listed_asked_and_stopped(start_worker: Start, app: RedisQ, redis_url: str, raw: redis.Redis) -> None:
    one = start_worker("-Q", "slow", "-n", "one").ready()
    two = start_worker("-Q", "work", "-n", "two", "-c", "3").ready()
    wait_until(lambda: set(app.control.workers()) == {"one", "two"}, "signs of life")
    assert app.control.ping() == ["one", "two"]
    about = app.control.workers()["two"]
    assert (about["pid"], about["slots"], about["queues"]) == (two.process.pid, 3 + 10 + (os.cpu_count() or 1), ["work"])
    shown = json.loads(cli(redis_url, "workers", "--json"))
    assert {name: each["answers"] for name, each in shown.items()} == {"one": True, "two": True}
    assert "one  answers" in cli(redis_url, "workers")
    assert cli(redis_url, "shutdown", "one") == "stopping: one\n"
    assert one.wait() == 0
    wait_until(lambda: set(app.control.workers()) == {"two"}, "one signed off")
    assert asyncio.run(stop_all(app)) == ["two"]
    assert two.wait() == 0
    assert raw.keys("redisq:worker:*") == []
    app.close()


def test_workers_of_another_database_are_not_asked_and_not_stopped(start_worker: Start, redis_url: str, raw: redis.Redis) -> None:
    elsewhere = redis_url.rpartition("/")[0] + "/1" if redis_url.count("/") > 2 else f"{redis_url}/1"
    here, other = bot.app.at(url=redis_url), bot.app.at(url=elsewhere)
    one = start_worker("-Q", "slow", "-n", "one").ready()
    two = start_worker("-Q", "slow", "-n", "two", url=elsewhere).ready()
    wait_until(lambda: here.control.ping() == ["one"], "the worker of database 0 answers")
    wait_until(lambda: other.control.ping() == ["two"], "the worker of database 1 answers")
    assert cli(redis_url, "shutdown", "--all") == "stopping: one\n"
    assert one.wait() == 0
    assert other.control.ping() == ["two"]
    assert other.control.shutdown() == ["two"]
    assert two.wait() == 0
    here.close()
    other.close()


async def stop_all(app: RedisQ) -> list[str]:
    stopped = await app.control.ashutdown()
    await app.aclose()
    return stopped


def test_a_bots_own_loop_asks_the_same(start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    start_worker("-Q", "slow", "-n", "one").ready()
    wait_until(app.control.workers, "a sign of life")

    async def ask() -> None:
        control = app.control
        assert await control.aping() == control.ping() == ["one"]
        assert set(await control.aworkers()) == {"one"}
        job = await app.asend("sleep", (1, 60.0))
        async with asyncio.timeout(10):
            while not Ledger(tmp_path / "ledger").starts["1"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [run["id"] for run in (await control.arunning())["one"]] == [job.id]
        assert await control.acancel(job.id)
        async with asyncio.timeout(1):
            while await job.astate() is not State.GONE:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not await control.acancel(job.id)
        await control.apause("slow")
        assert raw.hget("slow:config", "paused") == b"1"
        await control.aresume("slow")
        assert raw.hget("slow:config", "paused") != b"1"
        await app.aclose()

    asyncio.run(ask())
    app.close()


def test_a_worker_that_is_frozen_is_listed_and_does_not_answer(start_worker: Start, app: RedisQ, redis_url: str) -> None:
    worker = start_worker("-Q", "slow", "-n", "one").ready()
    wait_until(lambda: "one" in app.control.workers(), "a sign of life")
    worker.signal(signal.SIGSTOP)
    assert app.control.ping() == []
    assert "one  does not answer" in cli(redis_url, "workers")
    worker.signal(signal.SIGCONT)
    wait_until(lambda: app.control.ping() == ["one"], "it answers again")
    app.close()


@pytest.mark.parametrize("task", ["sleep", "sleep_in_steps"])
def test_a_running_job_is_cancelled_within_a_second(
    task: str, start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "slow").ready()
    wait_until(app.control.workers, "it hears questions")
    job = app.send(task, (1, 60.0))
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    runs = [run for each in app.control.running().values() for run in each]
    assert [(run["id"], run["task"], run["attempt"]) for run in runs] == [(job.id, task, 1)]
    began = time.monotonic()
    assert job.cancel()
    wait_until(lambda: job.state() is State.GONE, "gone", 1)
    assert time.monotonic() - began < 1
    assert raw.hget("slow:stats", "cancelled") == b"1"
    assert not Ledger(tmp_path / "ledger").ends
    with pytest.raises(NoResult):
        job.get(timeout=1)
    assert not job.cancel()
    app.close()


@pytest.mark.parametrize("task", ["sleep", "sleep_in_steps"])
def test_a_worker_that_did_not_hear_of_it_stops_a_cancelled_job_when_it_extends_its_lease(
    task: str, start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    job = app.send(task, (1, 60.0))
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    # The mark alone, without the question to the workers.
    assert app.connector.execute(commands.cancel(app.keys("slow"), [job.id])) == [job.id]
    wait_until(lambda: job.state() is State.GONE, "gone at the next renewal", 3)
    assert raw.hget("slow:stats", "cancelled") == b"1"
    assert not Ledger(tmp_path / "ledger").ends
    app.close()


def test_a_job_that_is_cancelled_while_its_worker_is_frozen_does_not_run_again_when_that_dies(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    job, other = app.send("sleep", (1, 60.0)), app.send("sleep", (2, 60.0))
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == 2, "started")
    worker.signal(signal.SIGSTOP)
    assert job.cancel()
    worker.kill()
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["2"] == 2, "the other one was taken over")
    wait_until(lambda: job.state() is State.GONE, "gone")
    assert Ledger(tmp_path / "ledger").starts["1"] == 1
    assert raw.hget("slow:stats", "cancelled") == b"1"
    assert other.cancel()
    app.close()


@pytest.mark.parametrize(("task", "options"), [("sleep_in_steps", (60.0,)), ("sleep_in_a_process", ())])
def test_a_job_that_is_cancelled_before_its_turn_in_a_thread_or_process_never_starts(
    task: str, options: tuple[float, ...], start_worker: Start, app: RedisQ, tmp_path: Path
) -> None:
    start_worker("-Q", "slow,apart", "-t", "1").ready()
    running = 1 if options else os.cpu_count() or 1
    first = [app.send(task, (number, *options)) for number in range(running)]
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == running, "all that can run do")
    waiting = app.send(task, (99, *options))
    assert waiting.cancel()
    for job in first:
        assert job.cancel()
    wait_until(lambda: {job.state() for job in [waiting, *first]} == {State.GONE}, "all gone")
    assert Ledger(tmp_path / "ledger").starts["99"] == 0
    app.close()


def test_a_running_job_in_a_process_is_killed_when_it_is_cancelled(
    start_worker: Start, app: RedisQ, raw: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "apart").ready()
    job = app.send("sleep_in_a_process", (1,))
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    assert "cancelled job" in cli(redis_url, "cancel", job.id)
    wait_until(lambda: job.state() is State.GONE, "gone")
    assert raw.hget("apart:stats", "crashes") is None
    assert "was cancelled" in worker.text()
    app.close()


def test_a_paused_queue_keeps_what_is_sent_and_goes_on_when_it_is_resumed(
    start_worker: Start, app: RedisQ, raw: redis.Redis, redis_url: str
) -> None:
    start_worker("-Q", "work").ready()
    app.send("short", (0,), queue="work")
    wait_until(lambda: raw.hget("work:stats", "processed_requests") == b"1", "the first ran")
    assert cli(redis_url, "pause", "work") == "queue work is paused\n"
    app.send("short", (1,), queue="work")
    app.send("short", (2,), queue="work")
    assert raw.hget("work:config", "paused") == b"1"
    # A delayed message comes and goes in the time that the worker needs for a look at the queue.
    app.send("sleep", (3, 0.0), queue="work", countdown=1.1)
    wait_until(lambda: raw.zcard("work:queue:delayed") == 0, "the worker looked")
    assert raw.zcard("work:queue:main") == 3
    assert cli(redis_url, "resume", "work") == "queue work goes on\n"
    wait_until(lambda: raw.hget("work:stats", "processed_requests") == b"4", "all ran")
    app.close()
