"""What waits for a free thread or process of its worker: it is not charged with the worker's death, and bears all else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.app.job import Job
from redisq.states import State
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.integration.test_lost_lease import give_to_another

Start = Callable[..., WorkerProcess]
LEASE = {"BOT_LEASE": "3"}
CORES = os.cpu_count() or 1


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = bot.app.at(url=redis_url)
    yield app
    app.close()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """What `hold` waits for the end of."""
    path = tmp_path / "held"
    path.touch()
    return path


def waiting(raw: redis.Redis, queue: str, worker: str = "w") -> set[str]:
    """The ids of those that are noted as waiting for a thread or process of that worker."""
    leases = raw.hgetall(f"{queue}:leases")
    ending = f" {worker} waits".encode()
    return {job_id.decode() for job_id, record in leases.items() if not record.startswith(b"x") and record.endswith(ending)}


def crashes(raw: redis.Redis, queue: str, jobs: list[Job]) -> list[int]:
    metas = [raw.hget(f"{queue}:meta", job.id) or b"" for job in jobs]
    return [int(meta.partition(b"crashes=")[2].partition(b" ")[0] or 0) for meta in metas]


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("queue", "holds", "waits", "room"),
    [("slow", "hold", "sleep_sync", 1), ("apart", "hold_in_a_process", "in_a_process", CORES)],
    ids=["threads", "processes"],
)
def test_what_waits_is_not_charged_with_the_death_of_its_worker(
    queue: str, holds: str, waits: str, room: int, start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path, held: Path
) -> None:
    holders = [app.send(holds, (number, str(held))) for number in range(3 * room)]
    jobs = [app.send(waits, (number, 0.0) if queue == "slow" else (number,)) for number in range(100, 110)]
    ids = {job.id for job in jobs}
    for name in ("w1", "w2", "w3", "w4"):
        worker = start_worker("-Q", queue, "-n", name, "-c", "30", "-t", "1", **LEASE).ready()
        wait_until(lambda name=name: ids <= waiting(raw, queue, name), "they wait, and Redis knows")
        if name != "w4":
            worker.kill()
    assert crashes(raw, queue, jobs) == [0] * len(jobs)
    assert crashes(raw, queue, holders[:1]) >= [2]
    assert int(raw.hget(f"{queue}:stats", "crashes")) == sum(crashes(raw, queue, holders))
    assert not any(Ledger(tmp_path / "ledger").starts[str(number)] for number in range(100, 110))
    held.unlink()
    wait_until(lambda: not raw.hlen(f"{queue}:messages"), "all run in the end", 30)
    ledger = Ledger(tmp_path / "ledger")
    assert [ledger.starts[str(number)] for number in range(100, 110)] == [1] * len(jobs)
    if queue == "slow":
        assert {ledger.pids[str(number)] for number in range(100, 110)} == {worker.process.pid}, "none ran apart"
    assert raw.zcard(f"{queue}:queue:dlq") == 0


@pytest.mark.chaos
def test_what_kills_its_worker_after_it_has_waited_is_caught(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    poison = app.send("dies", (666,))
    innocent = app.send("sleep_sync", (7, 0.0))
    for name in ("w1", "w2"):
        held = tmp_path / name
        held.touch()
        app.tasks["hold"].options(priority=200).delay(1, str(held))
        worker = start_worker("-Q", "slow", "-n", name, "-c", "30", "-t", "1", **LEASE).ready()
        wait_until(lambda name=name: waiting(raw, "slow", name) >= {poison.id, innocent.id}, "both wait, and Redis knows")
        held.unlink()
        assert worker.wait() == -signal.SIGKILL
    start_worker("-Q", "slow", "-c", "30", "-t", "1", **LEASE).ready()
    wait_until(lambda: raw.zcard("slow:queue:dlq") == 1, "it is a dead letter", 30)
    assert b"crashes=3" in raw.hget("slow:meta", poison.id)
    wait_until(lambda: raw.hlen("slow:messages") == 1, "all others ran", 30)
    ledger = Ledger(tmp_path / "ledger")
    assert (ledger.starts["666"], ledger.starts["7"], ledger.ends["7"]) == (3, 1, 1)


@pytest.mark.chaos
def test_what_was_there_when_a_worker_died_is_not_charged_again_by_one_that_kills_at_once(
    start_worker: Start, app: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    poisons = [app.send("dies", (number,)) for number in (666, 667, 668)]
    jobs = [app.send("sleep_sync", (number, 0.0)) for number in range(100, 110)]
    deaths = 0
    worker = start_worker("-Q", "slow", "-c", "30", "-t", "1", **LEASE).ready()

    def look() -> bool:
        nonlocal worker, deaths
        if worker.process.poll() is not None:
            deaths += 1
            worker = start_worker("-Q", "slow", "-c", "30", "-t", "1", **LEASE)
        assert max(crashes(raw, "slow", jobs)) <= 1
        return raw.hlen("slow:messages") == len(poisons) == raw.zcard("slow:queue:dlq")

    wait_until(look, "all run but the poisons", 90)
    assert deaths == 1 + len(poisons), "of those that had not begun, only the first death charged any"
    ledger = Ledger(tmp_path / "ledger")
    assert [ledger.starts[str(number)] for number in range(100, 110)] == [1] * len(jobs)


@pytest.mark.parametrize(
    ("queue", "holds", "waits", "room"),
    [("slow", "hold", "sleep_sync", 1), ("apart", "hold_in_a_process", "in_a_process", CORES)],
    ids=["threads", "processes"],
)
class TestOneThatWaits:
    """A worker whose threads or processes are all busy, and one message that waits for one."""

    @pytest.fixture
    def worker(
        self, queue: str, holds: str, room: int, start_worker: Start, app: RedisQ, tmp_path: Path, held: Path
    ) -> WorkerProcess:
        worker = start_worker("-Q", queue, "-c", "30", "-t", "1", "--shutdown-timeout", "3", "-n", "w", **LEASE).ready()
        for number in range(room):
            app.send(holds, (number, str(held)))
        wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) == room, "all are busy")
        return worker

    @pytest.fixture
    def job(self, queue: str, waits: str, worker: WorkerProcess, app: RedisQ, raw: redis.Redis) -> Job:
        job = app.send(waits, (7, 0.0) if queue == "slow" else (7,))
        wait_until(lambda: waiting(raw, queue) == {job.id}, "it waits, and Redis knows")
        return job

    def test_is_cancelled_at_once(self, queue: str, job: Job, app: RedisQ, raw: redis.Redis, tmp_path: Path, held: Path) -> None:
        [run] = [run for runs in app.control.running().values() for run in runs if run["id"] == job.id]
        assert run["seconds"] is None
        began = time.monotonic()
        assert app.control.cancel(job.id)
        wait_until(lambda: job.state() is State.GONE, "it is gone", 1.0 - (time.monotonic() - began))
        held.unlink()
        wait_until(lambda: not raw.hlen(f"{queue}:messages"), "the others end")
        assert not Ledger(tmp_path / "ledger").starts["7"]
        assert raw.hget(f"{queue}:stats", "cancelled") == b"1"

    def test_begins_when_there_is_room(self, queue: str, job: Job, raw: redis.Redis, tmp_path: Path, held: Path) -> None:
        held.unlink()
        wait_until(lambda: not raw.hlen(f"{queue}:messages"), "all end")
        assert Ledger(tmp_path / "ledger").starts["7"] == 1
        assert not raw.hget(f"{queue}:stats", "crashes")

    def test_is_not_begun_when_its_lease_is_lost(
        self, queue: str, job: Job, worker: WorkerProcess, raw: redis.Redis, tmp_path: Path, held: Path
    ) -> None:
        give_to_another(raw, queue)
        held.unlink()
        worker.wait_for_log(rf"Lost the lease of task \w+\[{job.id}\]")
        worker.terminate()
        assert not Ledger(tmp_path / "ledger").starts["7"]

    def test_is_begun_in_a_drain(
        self, queue: str, job: Job, worker: WorkerProcess, raw: redis.Redis, tmp_path: Path, held: Path
    ) -> None:
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("Stopping: ")
        held.unlink()
        assert worker.wait() == 0
        assert Ledger(tmp_path / "ledger").starts["7"] == 1
        assert not raw.hlen(f"{queue}:messages")

    def test_is_given_back_when_the_drain_takes_too_long(
        self, queue: str, job: Job, worker: WorkerProcess, raw: redis.Redis, tmp_path: Path
    ) -> None:
        assert worker.terminate() == 0
        assert job.state() is State.WAITING
        assert crashes(raw, queue, [job]) == [0]
        assert not Ledger(tmp_path / "ledger").starts["7"]

    def test_waits_for_redis_to_say_that_it_may_begin(
        self, queue: str, job: Job, worker: WorkerProcess, raw: redis.Redis, tmp_path: Path, held: Path
    ) -> None:
        raw.execute_command("CLIENT", "PAUSE", 1000, "WRITE")
        held.unlink()
        wait_until(lambda: Ledger(tmp_path / "ledger").ends["0"], "there is room")
        wait_until(lambda: raw.hget(f"{queue}:leases", job.id) is None, "it ended", 10)
        assert Ledger(tmp_path / "ledger").starts["7"] == 1
