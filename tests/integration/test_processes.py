"""Tasks in processes of their own, and messages that kill their worker."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration import bot
from tests.integration.processes import ROOT, Ledger, WorkerProcess, has_died, wait_until

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(redis_url: str) -> RedisQ:
    return bot.app.at(url=redis_url)


@pytest.mark.parametrize("name", ["in_a_process", "in_a_process_async"])
def test_a_task_runs_in_a_process_of_its_own(name: str, start_worker: Start, app: RedisQ) -> None:
    worker = start_worker("-Q", "apart").ready()
    jobs = [app.send(name, (number,)) for number in range(10)]
    pids = {job.get(timeout=20) for job in jobs}
    assert worker.process.pid not in pids
    assert os.getpid() not in pids
    assert len(pids) <= (os.cpu_count() or 1)
    app.close()


def test_an_error_in_a_process_is_a_failed_attempt(start_worker: Start, app: RedisQ, raw: redis.Redis) -> None:
    start_worker("-Q", "apart").ready()
    job = app.send("fails_in_a_process", (7,))
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter")
    assert b"reason=exhausted text=ValueError: no 7" in raw.hget("apart:meta", job.id)
    app.close()


def test_an_error_without_words_and_a_result_that_cannot_travel_are_no_crash(
    start_worker: Start, app: RedisQ, raw: redis.Redis
) -> None:
    start_worker("-Q", "apart").ready()
    failing = app.send("raises_the_unspeakable_in_a_process")
    app.send("returns_what_cannot_travel_in_a_process")
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter")
    assert b"reason=exhausted text=Unspeakable" in raw.hget("apart:meta", failing.id)
    wait_until(lambda: raw.hget("apart:stats", "processed_requests") == b"1", "the other is done, its result is not kept")
    assert not raw.hget("apart:stats", "crashes")
    app.close()


def test_a_dying_process_fails_only_its_own_task(start_worker: Start, app: RedisQ, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "apart").ready()
    dying = app.send("dies_in_a_process", (1,))
    others = [app.send("in_a_process", (number,)) for number in range(20)]
    assert all(job.get(timeout=20) for job in others)
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter after three deaths", 60)
    meta = raw.hget("apart:meta", dying.id)
    assert b"reason=crashed" in meta
    assert b"killed by SIGKILL" in meta
    assert worker.process.poll() is None
    app.close()


def test_a_process_past_its_timeout_is_killed_and_the_attempt_has_failed(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "apart").ready()
    job = app.send("too_long_in_a_process", (1,))
    wait_until(lambda: raw.zcard("apart:queue:dlq") == 1, "a dead letter")
    assert b"TaskTimeout: timeout of 1 s" in raw.hget("apart:meta", job.id)
    assert "X 1 " in (tmp_path / "ledger").read_text(), "it was told first"
    app.close()


def test_the_children_of_a_killed_worker_die_with_it(start_worker: Start, app: RedisQ) -> None:
    worker = start_worker("-Q", "apart").ready()
    pid = app.send("in_a_process", (1,)).get(timeout=20)
    worker.kill()
    wait_until(lambda: has_died(pid), "the child died")
    app.close()


@pytest.mark.chaos
def test_after_the_shutdown_timeout_nothing_that_waits_for_a_process_is_begun(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "apart", "--shutdown-timeout", "0.5").ready()
    room = os.cpu_count() or 1
    for number in range(room + 4):
        app.send("sleep_in_a_process", (number,))
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == room, "all processes are busy")
    # A slow Redis: the worker waits for it with all given back, a second longer than its shutdown timeout at most.
    raw.execute_command("CLIENT", "PAUSE", 800, "WRITE")
    assert worker.terminate() == 0
    assert len(Ledger(tmp_path / "ledger").starts) == room
    assert raw.zcard("apart:queue:main") == room + 4
    assert "SIGKILL" not in worker.text(), "it killed them itself"
    app.close()


def test_what_a_process_cannot_import_is_put_aside_and_is_no_crash(start_worker: Start, app: RedisQ, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "apart", BOT_FAILS_APART="the port is taken").ready()
    job = app.send("in_a_process", (1,))
    wait_until(lambda: raw.zcard("apart:queue:retry") == 1, "put aside")
    meta = raw.hget("apart:meta", job.id)
    assert b"reason=not_importable" in meta
    assert b"parks=1" in meta
    assert b"RuntimeError: the port is taken" in meta
    assert not raw.hget("apart:stats", "crashes")
    assert worker.process.poll() is None
    app.close()


def test_a_process_that_cannot_even_start_is_no_crash_of_the_message(redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import asyncio\n"
        "from redisq import RedisQ, Worker\n"
        "if __name__ != '__main__': raise RuntimeError('main is for one process')\n"
        "app = RedisQ('bot')\n"
        "@app.task(pool='process')\n"
        "def work() -> None: ...\n"
        "async def main() -> None:\n"
        "    await work.adelay()\n"
        "    await Worker(app).run()\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "REDISQ_URL": redis_url, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: raw.zcard("bot:queue:retry") == 1, "put aside")
        [meta] = raw.hvals("bot:meta")
        assert b"reason=not_importable" in meta
        assert b"before its modules were imported: failed (exit code 1)" in meta
        assert not raw.hget("bot:stats", "crashes")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["python", "C"])
def test_a_dead_process_is_replaced_even_if_what_it_forked_lives_on(
    kind: str, start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", "apart").ready()
    for number in range(os.cpu_count() or 1):
        app.send("dies_and_leaves_a_fork", (number, kind))
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == (os.cpu_count() or 1), "all processes have had one")
    app.send("in_a_process", (9,)).get(timeout=20)
    wait_until(lambda: raw.hget("apart:stats", "crashes"), "the deaths are noticed")
    app.close()


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
@pytest.mark.parametrize("task", ["in_a_process", "one_a_minute"])
def test_a_worker_that_can_start_no_process_gives_the_message_back_and_goes_on(
    task: str, start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "apart,slow").ready()
    wait_until(lambda: any(client["name"] == "redisq:worker-idle" for client in raw.client_list()), "it has its connections")
    limits = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    # Its rate is not spent by the tries: else it would not run for a minute.
    job = app.tasks[task].delay(1)
    worker.wait_for_log("Could not start message .* no process of its own: ")
    wait_until(lambda: raw.hget("apart:stats", "released"), "given back")
    app.send("sleep_sync", (2, 0.0))
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["2"], "the worker goes on")
    resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, limits)
    assert job.get(timeout=20), "it runs once there is room"
    app.close()
