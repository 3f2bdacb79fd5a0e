"""SIGTERM drains and gives back (I31); SIGKILL loses nothing (I10)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.worker.signals import ALSO_STOP
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.servers import RedisServer

Start = Callable[..., WorkerProcess]


@pytest.mark.parametrize("task", ["sleep", "sleep_sync"])
def test_sigterm_lets_running_handlers_finish(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow").ready()
    producer.tasks[task].delay(1, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    assert worker.terminate() == 0
    assert Ledger(tmp_path / "ledger").ends["1"] == 1
    assert raw.hget("slow:stats", "processed_requests") == b"1"
    assert raw.zcard("slow:queue:processing") == 0


@pytest.mark.parametrize("task", ["sleep", "sleep_sync"])
def test_what_does_not_finish_in_time_is_given_back_at_once_and_free_of_charge(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "--shutdown-timeout", "0.2").ready()
    jobs = producer.tasks[task].delay_many([(number, 60.0) for number in range(3)])
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == 3, "three handlers started")
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 5
    assert [waiting.decode() for waiting in raw.zrange("slow:queue:main", 0, -1)] == [job.id for job in jobs], "back in their order"
    assert raw.zcard("slow:queue:processing") == raw.hlen("slow:leases") == raw.hlen("slow:meta") == 0
    assert raw.hget("slow:stats", "released") == b"3"


def test_a_second_signal_ends_the_worker_now(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    worker = start_worker("-Q", "slow", "--shutdown-timeout", "60").ready()
    producer.tasks["sleep"].delay(1, 60.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("60 s to finish")
    told = time.monotonic()
    worker.signal(signal.SIGTERM)
    worker.signal_again(signal.SIGTERM, told)
    assert worker.wait(5) == 0
    assert raw.zcard("slow:queue:main") == 1


def test_now_is_now_also_without_redis(start_worker: Start, tmp_path: Path) -> None:
    with RedisServer() as server:
        app = bot.app.at(url=server.url())
        worker = start_worker("-Q", "slow", url=server.url()).ready()
        app.send("sleep", (1, 60.0))
        wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
        app.close()
        server.kill()
        worker.wait_for_log("Lost Redis connection")
        told = time.monotonic()
        worker.signal(signal.SIGTERM)
        worker.signal_again(signal.SIGTERM, told)
        again = time.monotonic()
        assert worker.wait(5) == 0
        assert time.monotonic() - again < 2
        assert "Stopped without an answer from Redis: the leases of 1 message will expire" in worker.text()


@pytest.mark.parametrize("seconds", [0.0, 60.0], ids=["idle", "with a handler"])
@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_a_stop_without_redis_ends_within_the_stop_time(how: str, seconds: float, start_worker: Start, tmp_path: Path) -> None:
    with RedisServer() as server:
        app = bot.app.at(url=server.url())
        worker = start_worker("-Q", "slow", "--shutdown-timeout", "3", url=server.url()).ready()
        if seconds:
            app.send("sleep", (1, seconds))
            wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
        app.close()
        if how == "dead":
            server.kill()
            worker.wait_for_log("Lost Redis connection")
        with server.frozen() if how == "frozen" else nullcontext():
            told = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert worker.wait(20) == 0
            # The process itself needs a moment to end.
            assert time.monotonic() - told < 3 + 2


@pytest.mark.parametrize("options", [(), ("-w", "1")], ids=["one process", "supervised"])
def test_a_signal_to_the_whole_group_lets_handlers_finish(
    options: tuple[str, ...], start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    """Ctrl-C; supervisord's stopasgroup and systemd's KillMode=control-group."""
    for number, sent in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        worker = start_worker("-Q", "slow", *options).ready()
        producer.tasks["sleep"].delay(number, 1.5)
        wait_until(lambda number=number: Ledger(tmp_path / "ledger").starts[str(number)], "the handler started")  # type: ignore[misc]
        os.killpg(worker.process.pid, sent)
        assert worker.wait() == 0
        assert Ledger(tmp_path / "ledger").ends[str(number)] == 1, f"{sent.name} to the group counted twice"
    assert raw.hget("slow:stats", "processed_requests") == b"2"


@pytest.mark.parametrize("options", [(), ("-w", "2")], ids=["one process", "supervised"])
@pytest.mark.parametrize("to", ["one", "group"])
@pytest.mark.parametrize("sent", ALSO_STOP)
def test_signals_that_kill_by_default_let_handlers_finish(
    sent: signal.Signals, to: str, options: tuple[str, ...], start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "-Q", "apart", *options).ready()
    producer.tasks["sleep"].delay(1, 1.5)
    producer.send("naps_in_a_process", (2, 1.5))
    started = lambda: all(Ledger(tmp_path / "ledger").starts[name] for name in "12")  # noqa: E731
    wait_until(started, "both handlers started")
    (os.killpg if to == "group" else os.kill)(worker.process.pid, sent)
    assert worker.wait() == 0
    assert [Ledger(tmp_path / "ledger").ends[name] for name in "12"] == [1, 1]
    assert raw.hget("apart:stats", "processed_requests") == raw.hget("slow:stats", "processed_requests") == b"1"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_while_its_app_is_imported_ends_at_once(
    sent: signal.Signals, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "importing.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    worker = WorkerProcess(redis_url, tmp_path, app="importing:app", folder_to_run_in=tmp_path)
    try:
        worker.wait_for_log("importing")
        worker.signal(sent)
        assert worker.wait(5) == 0
    finally:
        worker.kill()


def test_a_killed_workers_message_goes_to_another_within_the_lease(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    first = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    producer.tasks["hold"].delay(1, str(held))
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the handler started")
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    killed = time.time()
    first.kill()
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"] == 2, "the other started it")
    held.unlink()
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled by the other")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.starts["1"] == 2
    assert ledger.times["S", "1"] - killed < 3 + 1
    assert raw.hget("slow:stats", "crashes") == b"1"


@pytest.mark.chaos
@pytest.mark.parametrize("task", ["sleep", "sleep_sync", "block_the_loop"])
def test_a_handler_longer_than_its_lease_runs_once(
    task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    for _ in range(2):
        start_worker("-Q", "slow", BOT_LEASE="3").ready()
    producer.tasks[task].delay(1, 7.5)
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.starts["1"] == ledger.ends["1"] == 1
    assert raw.hget("slow:stats", "crashes") is None
