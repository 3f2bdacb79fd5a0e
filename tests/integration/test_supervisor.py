"""`redisq worker -w n`: what dies is replaced, and what ends takes its children with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.cli.worker import MAX_LEAKS
from redisq.worker.supervisor import how_it_ended
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


def children(worker: WorkerProcess) -> list[int]:
    """The processes of a supervisor that run."""
    listed = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


def started(worker: WorkerProcess) -> int:
    return len(re.findall("is ready", worker.text()))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_killed_process_is_replaced_and_its_message_runs_again(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "-w", "2", BOT_LEASE="3")
    wait_until(lambda: started(worker) == 2, "two processes")
    producer.tasks["sleep"].delay(1, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    ledger = (tmp_path / "ledger").read_text().split()
    os.kill(int(ledger[2]), signal.SIGKILL)
    worker.wait_for_log(r"Worker process \d killed by SIGKILL, often for lack of memory, starting another in 0\.\d s")
    wait_until(lambda: started(worker) == 3, "another one")
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "settled")
    assert len(children(worker)) == 2
    pids = children(worker)
    assert worker.terminate() == 0
    assert all(is_gone(pid) for pid in pids)


def test_a_signal_to_the_supervisor_drains_all(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    worker = start_worker("-Q", "slow", "-w", "2")
    wait_until(lambda: started(worker) == 2, "two processes")
    producer.tasks["sleep"].delay_many([(number, 1.0) for number in range(10)])
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == 10, "ten handlers")
    assert worker.terminate() == 0
    assert raw.hget("slow:stats", "processed_requests") == b"10"


def test_children_of_a_killed_supervisor_drain_and_end(start_worker: Start, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "slow", "-w", "2")
    wait_until(lambda: started(worker) == 2, "two processes")
    pids = children(worker)
    worker.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids), "the children ended by themselves")
    assert "its supervisor is gone" in worker.text()


def test_a_command_that_cannot_work_ends_the_supervisor_with_its_words(start_worker: Start) -> None:
    worker = WorkerProcess("redis://127.0.0.1:1", start_worker().ready().log.parent, "-w", "2", app="no_such_module:app")
    assert worker.wait() == 78
    assert "ConfigError: no module 'no_such_module'" in worker.text()


def test_a_process_that_can_work_no_more_does_not_end_the_others(redis_url: str, tmp_path: Path) -> None:
    """A password, or the code, was changed for the worse while they ran."""
    code = "from redisq import RedisQ\napp = RedisQ('bot')\n@app.task\nasync def first(): ...\n"
    (tmp_path / "deployed.py").write_text(code)
    worker = WorkerProcess(redis_url, tmp_path, "-w", "2", app="deployed:app", folder_to_run_in=tmp_path)
    try:
        wait_until(lambda: started(worker) == 2, "two processes")
        (tmp_path / "deployed.py").write_text("no_app = 1\n")
        one, other = children(worker)
        os.kill(one, signal.SIGKILL)
        worker.wait_for_log(r"cannot work like this \(exit code 78\), starting another in")
        (tmp_path / "deployed.py").write_text("import no_such_module\n")
        worker.wait_for_log(r"failed \(exit code 1\), starting another in")
        assert not is_gone(other)
        (tmp_path / "deployed.py").write_text(code)
        wait_until(lambda: started(worker) == 3, "another one")
        assert not is_gone(other)
        assert worker.terminate() == 0
    finally:
        worker.kill()


def test_a_handler_that_raises_keyboard_interrupt_has_failed_and_its_worker_goes_on(
    start_worker: Start, producer: RedisQ, raw: redis.Redis
) -> None:
    worker = start_worker("-Q", "slow,work", "-w", "1").ready()
    producer.tasks["interrupts"].delay(1)
    wait_until(lambda: raw.zcard("slow:queue:dlq") == 1, "a dead letter")
    producer.tasks["short"].delay(1)
    wait_until(lambda: raw.hget("work:stats", "processed_requests") == b"1", "the next one ran")
    assert started(worker) == 1, f"it was started again: {worker.text()}"
    assert worker.terminate() == 0


def test_a_broken_change_of_the_code_is_waited_out(tmp_path: Path, redis_url: str) -> None:
    code = "from redisq import RedisQ\napp = RedisQ('bot')\n@app.task\nasync def {name}(): ...\n"
    (tmp_path / "broken.py").write_text(code.format(name="first"))
    worker = WorkerProcess(redis_url, tmp_path, "-r", app="broken:app", folder_to_run_in=tmp_path)
    try:
        worker.wait_for_log("slots, first")
        (tmp_path / "broken.py").write_text("app = RedisQ('bot'\n")
        worker.wait_for_log(r"failed \(exit code 1\), starting another when the code changes")
        (tmp_path / "broken.py").write_text("no_app = 1\n")
        worker.wait_for_log(r"cannot work like this \(exit code 78\), starting another when the code changes")
        (tmp_path / "broken.py").write_text(code.format(name="second"))
        worker.wait_for_log("slots, second")
        assert worker.terminate() == 0
    finally:
        worker.kill()


def test_what_is_to_end_anyway_does_not_cut_a_drain_short(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", "-w", "1", "--max-tasks-per-child", "1").ready()
    producer.tasks["sleep"].delay(1, 4.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "the long one started")
    producer.tasks["sleep"].delay(2, 1.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["2"], "the short one started")
    assert worker.terminate() == 0
    assert Ledger(tmp_path / "ledger").ends == {"1": 1, "2": 1}
    assert raw.hget("slow:stats", "processed_requests") == b"2"


def test_a_process_that_was_asked_to_stop_is_no_error_and_is_replaced(
    start_worker: Start, producer: RedisQ, raw: redis.Redis
) -> None:
    worker = start_worker("-Q", "slow", "-w", "1").ready()
    wait_until(producer.control.workers, "it hears questions")
    assert producer.control.shutdown()
    worker.wait_for_log(r"INFO - Worker process 0 ended as it was asked to, starting another in 0.0 s")
    wait_until(lambda: started(worker) == 2, "another one")
    assert "ERROR" not in worker.text()
    assert worker.terminate() == 0


def test_a_process_that_has_done_its_share_is_replaced(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    producer.tasks["short"].delay_many([(number,) for number in range(200)])
    worker = start_worker("-Q", "work", "--max-tasks-per-child", "50")
    worker.wait_for_log(r"ends for another: its share of \d+ tasks is done")
    worker.wait_for_log(r"recycled itself \(exit code 75\), starting another in 0.0 s")
    producer.tasks["short"].delay_many([(number,) for number in range(200)])
    wait_until(lambda: raw.hget("work:stats", "processed_requests") == b"400", "all done")
    assert raw.zcard("work:queue:processing") == 0
    assert worker.terminate() == 0


def test_a_process_that_uses_too_much_memory_is_replaced(start_worker: Start) -> None:
    worker = start_worker("-Q", "work", "--max-memory-per-child", "1")
    worker.wait_for_log(r"\d+ MiB of memory are more than 1")
    wait_until(lambda: started(worker) >= 2, "another one")
    assert worker.terminate() == 0


@pytest.mark.chaos
@pytest.mark.parametrize("task", ["stubborn", "stubborn_sync"])
def test_a_process_that_lost_too_many_slots_is_replaced(task: str, start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "slow", "-w", "1", "-t", "6", "--shutdown-timeout", "0.5").ready()
    producer.tasks[task].delay_many([(number, 60.0) for number in range(MAX_LEAKS)])
    worker.wait_for_log(f"ends for another: {MAX_LEAKS} slots lost to handlers that do not stop")
    worker.wait_for_log(r"recycled itself \(exit code 75\), starting another in 0.0 s")
    wait_until(lambda: started(worker) == 2, "another one")
    assert raw.zcard("slow:queue:dlq") == MAX_LEAKS, "each is settled as failed"
    producer.tasks["sleep"].delay(99, 0.0)
    wait_until(lambda: raw.hget("slow:stats", "processed_requests") == b"1", "it has all its slots")
    assert worker.terminate() == 0


def test_the_fast_loop_is_used_where_it_is_installed(tmp_path: Path, redis_url: str, raw: redis.Redis) -> None:
    (tmp_path / "looped.py").write_text(
        "import asyncio\nfrom redisq import RedisQ\napp = RedisQ('bot')\n"
        "@app.task(result_ttl=60)\nasync def which(): return type(asyncio.get_running_loop()).__module__\n"
    )
    worker = WorkerProcess(redis_url, tmp_path, app="looped:app", folder_to_run_in=tmp_path)
    app = RedisQ("bot", url=redis_url)
    try:
        loop = app.send("which").get(timeout=20)
        assert loop.startswith("uvloop") == bool(find_spec("uvloop"))
        assert worker.terminate() == 0
    finally:
        worker.kill()
        app.close()


def test_a_burst_of_several_processes_ends(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    producer.tasks["short"].delay_many([(number,) for number in range(500)])
    assert start_worker("-Q", "work", "-w", "2", "-b").wait() == 0
    assert raw.hget("work:stats", "processed_requests") == b"500"


def test_changed_code_starts_the_processes_anew(start_worker: Start, tmp_path: Path, redis_url: str) -> None:
    code = "from redisq import RedisQ\napp = RedisQ('bot')\n@app.task\nasync def {name}(): ...\n"
    (tmp_path / "edited.py").write_text(code.format(name="first"))
    worker = WorkerProcess(redis_url, tmp_path, "-r", app="edited:app", folder_to_run_in=tmp_path)
    try:
        worker.wait_for_log("slots, first")
        (tmp_path / "edited.py").write_text(code.format(name="second"))
        worker.wait_for_log("slots, second")
        assert "The code changed" in worker.text()
        assert worker.terminate() == 0
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed by SIGKILL, often for lack of memory"),
        (-11, "killed by SIGSEGV"),
        (-99, "killed by signal 99"),
        (75, "recycled itself (exit code 75)"),
        (70, "its event loop was stuck (exit code 70)"),
        (0, "ended without being asked (exit code 0)"),
        (78, "cannot work like this (exit code 78)"),
        (1, "failed (exit code 1)"),
        (3, "exit code 3"),
    ],
)
def test_how_a_process_ended_is_said_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words


def test_a_supervisor_that_another_program_calls_starts_its_processes_with_its_own_options(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "called.py").write_text("from redisq import RedisQ\napp = RedisQ('app')\n@app.task\ndef f(): pass\n")
    program = "from redisq.cli.main import main; main(['worker', 'called:app', '-w', '1', '-b'], prog_name='mine')"
    done = subprocess.run(
        [sys.executable, "-c", program, "other", "arguments"],
        cwd=tmp_path, env={**os.environ, "REDISQ_URL": redis_url}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is ready" in done.stderr
