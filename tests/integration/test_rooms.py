"""A worker leases what its loop, its threads and its processes have room for, and leaves the rest to others."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.app.job import Job
from redisq.states import State
from tests.integration import bot, gated
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
LEASE = {"BOT_LEASE": "3"}
CORES = os.cpu_count() or 1

THREADS_OR_PROCESSES = pytest.mark.parametrize(
    ("queue", "holds", "waits", "room"),
    [("slow", "hold", "sleep_sync", 1), ("apart", "hold_in_a_process", "in_a_process", CORES)],
    ids=["threads", "processes"],
)


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


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[[], Ledger]:
    return lambda: Ledger(tmp_path / "ledger")


def leased(raw: redis.Redis, queue: str) -> set[str]:
    return {ident.decode() for ident in raw.zrange(f"{queue}:queue:processing", 0, -1)}


def crashes(raw: redis.Redis, queue: str, jobs: list[Job]) -> list[int]:
    metas = [raw.hget(f"{queue}:meta", job.id) or b"" for job in jobs]
    return [int(meta.partition(b"crashes=")[2].partition(b" ")[0] or 0) for meta in metas]


@pytest.mark.parametrize("where", ["in a queue of their own", "in the same queue"])
def test_async_tasks_do_not_wait_for_sync_ones(
    where: str, start_worker: Start, app: RedisQ, held: Path, ledger: Callable[[], Ledger]
) -> None:
    start_worker("-Q", "work", "-Q", "slow", "-c", "100", "-t", "2").ready()
    for number in range(150):
        app.send("hold", (number, str(held)))
    wait_until(lambda: sum(ledger().starts.values()) == 2, "both threads are busy")
    # What comes now finds the first 148 messages of the queue without room.
    task, args = ("short", ()) if where == "in a queue of their own" else ("sleep", (0.0,))
    for number in range(1000, 1030):
        app.send(task, (number, *args))
    wait_until(lambda: sum(ledger().ends.values()) == 30, "all async ones have ended", 5)
    assert sum(ledger().starts.values()) == 32


def test_an_idle_worker_gets_what_a_busy_one_has_no_room_for(
    start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis, ledger: Callable[[], Ledger]
) -> None:
    start_worker("-Q", "slow", "-c", "100", "-t", "2", "-n", "busy").ready()
    for number in range(6):
        app.send("hold", (number, str(held)))
    wait_until(lambda: len(ledger().starts) == 2, "both threads are busy")
    start_worker("-Q", "slow", "-c", "100", "-t", "2", "-n", "idle").ready()
    wait_until(lambda: len(ledger().starts) == 4, "the idle worker has begun two", 2)
    app.send("hold", (6, str(held)))
    assert sorted(Counter(ledger().pids.values()).values()) == [2, 2]
    assert len(leased(raw, "slow")) == 4
    held.unlink()
    wait_until(lambda: len(ledger().ends) == 7, "all end")


def test_a_worker_that_has_no_room_costs_redis_little(start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis) -> None:
    start_worker("-Q", "slow", "-c", "100", "-t", "1").ready()
    for number in range(1000):
        app.send("hold", (number, str(held)))
    wait_until(lambda: raw.zcard("slow:queue:processing") == 1, "its thread is busy")

    def looks() -> int:
        return sum(int(stat["calls"]) for name, stat in raw.info("commandstats").items() if name in ("cmdstat_zrange",))

    first, began = looks(), raw.time()
    wait_until(lambda: raw.time()[0] >= began[0] + 2, "a second has passed")
    now = raw.time()
    seconds = now[0] - began[0] + (now[1] - began[1]) / 1_000_000
    # A claim that looks past 500 messages has some ten of these.
    assert (looks() - first) / seconds < 45 * 12


def test_a_few_messages_without_room_do_not_slow_down_those_behind_them(
    start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis, ledger: Callable[[], Ledger]
) -> None:
    start_worker("-Q", "slow", "-c", "100", "-t", "2").ready()
    for number in range(CORES + 3):
        app.send("hold_in_a_process", (number, str(held)), queue="slow")
    wait_until(lambda: len(ledger().starts) == CORES, "the processes are busy", 30)
    app.tasks["sleep_sync"].delay_many([(number, 0.001) for number in range(1000, 1800)])
    wait_until(lambda: sum(map(bool, ledger().ends.values())) >= 600, "the threads are not", 9)


def test_workers_that_have_no_room_leave_redis_time_for_others(
    start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis, ledger: Callable[[], Ledger]
) -> None:
    app.tasks["hold"].delay_many([(number, str(held) + "x" * 2000 * (number > 2)) for number in range(600)])
    for name in ("one", "two", "three"):
        start_worker("-Q", "slow", "-c", "100", "-t", "1", "-n", name).ready()
    wait_until(lambda: raw.zcard("slow:queue:processing") == 3, "their threads are busy")

    def in_scripts() -> float:
        return float(raw.info("commandstats")["cmdstat_evalsha"]["usec"]) / 1_000_000

    def seconds() -> float:
        second, micro = raw.time()
        return second + micro / 1_000_000

    ready = seconds()
    wait_until(lambda: seconds() >= ready + 0.5, "they know what a look costs")
    began, spent = seconds(), in_scripts()
    wait_until(lambda: seconds() >= began + 2, "some seconds have passed")
    assert (in_scripts() - spent) / (seconds() - began) < 0.3
    app.tasks["sleep"].options(priority=5).delay(1000, 0.0)
    wait_until(lambda: ledger().ends["1000"], "what has room is found all the same", 1)


@pytest.mark.parametrize(("holds", "alone"), [("hold", "sleep"), ("endless", "sleep_sync")], ids=["async", "sync"])
def test_a_lone_message_with_room_behind_hundreds_without_begins_within_a_quarter_of_a_second(
    holds: str, alone: str, start_worker: Start, app: RedisQ, held: Path, ledger: Callable[[], Ledger]
) -> None:
    more = (str(held),) if holds == "hold" else ()
    app.tasks[holds].delay_many([(number, *more) for number in range(450)])
    start_worker("-Q", "slow", "-c", "2", "-t", "2").ready()
    wait_until(lambda: len(ledger().starts) == 2, "the others have no room")
    delays = []
    for number in range(1000, 1009):
        after = time.monotonic() + 0.4
        wait_until(lambda after=after: time.monotonic() > after, "the worker looked in vain for a while")
        sent = time.time()
        app.send(alone, (number, 0.0))
        wait_until(lambda number=number: ledger().starts[str(number)], "it has begun", 5)
        delays.append(ledger().times["S", str(number)] - sent)
    # Not all, since a machine under load is slow.
    assert sorted(delays)[len(delays) // 2] < 0.25, delays


def test_a_queue_that_redis_refuses_does_not_delay_what_has_room_in_others(
    start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis, ledger: Callable[[], Ledger]
) -> None:
    worker = start_worker("-Q", "work", "-Q", "slow", "-c", "100", "-t", "1").ready()
    for number, queue in enumerate(("work", "work", "slow")):
        app.send("hold", (number, str(held)), queue=queue)
    wait_until(lambda: len(ledger().starts) == 1, "the thread is busy")
    app.send("sleep", (100, 0.0), queue="work")
    wait_until(lambda: ledger().ends["100"], "the worker looks past what has no room")
    raw.rename("work:queue:main", "main")
    raw.set("work:queue:main", "another program's")
    worker.wait_for_log("Cannot claim from queue work")
    began = time.monotonic()
    for number in range(1000, 1008):
        app.send("sleep", (number, 0.0))
        wait_until(lambda number=number: ledger().ends[str(number)], "what has room has ended")
    assert time.monotonic() - began < 2.5, "looks at the other queue did not wait for the refused one"
    raw.rename("main", "work:queue:main")
    held.unlink()
    wait_until(lambda: len(ledger().ends) == 3 + 1 + 8, "all run")


def test_large_messages_without_room_are_read_few_at_a_time(start_worker: Start, app: RedisQ, held: Path, raw: redis.Redis) -> None:
    start_worker("-Q", "slow", "-c", "100", "-t", "1").ready()
    for number in range(2):
        app.send("hold", (number, str(held)))
    for number in range(30):
        app.send("hold", (number, str(held) + 900_000 * "x"))
    wait_until(lambda: raw.zcard("slow:queue:processing") == 1, "its thread is busy")
    read: list[int] = []
    with raw.monitor() as monitor:
        while len(read) < 30:
            command = monitor.next_command()["command"].split()
            if command[:2] == ["HMGET", "slow:messages"]:
                read.append(len(command) - 2)
    assert max(read) <= 3


@pytest.mark.parametrize(("holds", "paced"), [("hold_a_thread", "paced"), ("hold_a_process", "paced_apart")])
def test_a_rate_is_spent_by_what_runs_also_in_threads_and_processes(
    holds: str, paced: str, start_worker: Start, redis_url: str, tmp_path: Path, held: Path, ledger: Callable[[], Ledger]
) -> None:
    start = partial(start_worker, app="tests.integration.gated:app")
    start("-Q", "holds", "-Q", "paced", "-c", "100", "-t", str(CORES)).ready()
    with closing(gated.app.at(url=redis_url)) as app:
        for _ in range(CORES):
            app.send(holds, (str(held),))
        wait_until(lambda: ledger().starts["hold"] == CORES, "all are busy")
        for number in range(30):
            app.send(paced, (number,))
        app.tasks["mark"].options(countdown=1.5).delay(0)
        wait_until(lambda: ledger().starts["mark:0"], "time enough for 15 of them has passed")
        assert not ledger().starts["0"]
        held.unlink()
        wait_until(lambda: sum(ledger().starts[str(number)] for number in range(30)) == 30, "all run")
    times = sorted(when for (kind, what), when in ledger().times.items() if kind == "S" and what.isdigit())
    # One at once, one each 100 ms. A start may come some milliseconds after its lease.
    most = max(sum(first <= when < first + 1 for when in times) for first in times)
    assert most <= 12


def test_what_is_acknowledged_first_does_not_wait_in_the_worker(
    start_worker: Start, app: RedisQ, raw: redis.Redis, held: Path, ledger: Callable[[], Ledger]
) -> None:
    # Threads that are as quick as this have messages leased ahead.
    app.tasks["sleep_sync"].delay_many([(number, 0.0) for number in range(1000)])
    app.tasks["hold_at_most_once"].delay_many([(number, str(held)) for number in range(2000, 2030)])
    worker = start_worker("-Q", "slow", "-c", "100", "-t", "2").ready()
    wait_until(lambda: all(ledger().starts[str(number)] for number in (2000, 2001)), "both threads are busy")
    wait_until(lambda: raw.hlen("slow:messages") <= 28 and not raw.zcard("slow:queue:processing"), "all is settled")
    worker.kill()
    assert raw.hlen("slow:messages") == 28, "nothing is lost but what had begun"


@pytest.mark.chaos
@THREADS_OR_PROCESSES
def test_what_has_no_room_is_not_charged_with_the_death_of_a_worker(
    queue: str,
    holds: str,
    waits: str,
    room: int,
    start_worker: Start,
    app: RedisQ,
    raw: redis.Redis,
    held: Path,
    ledger: Callable[[], Ledger],
) -> None:
    holders = [app.send(holds, (number, str(held))) for number in range(4 * room)]
    jobs = [app.send(waits, (number, 0.0) if queue == "slow" else (number,)) for number in range(100, 110)]
    for deaths, name in enumerate(("w1", "w2", "w3", "w4"), 1):
        worker = start_worker("-Q", queue, "-n", name, "-c", "30", "-t", "1", **LEASE).ready()
        wait_until(lambda least=deaths * room: sum(ledger().starts.values()) >= least, "it is busy", 30)
        if name != "w4":
            worker.kill()
            assert not leased(raw, queue) & {job.id for job in jobs}
    assert crashes(raw, queue, jobs) == [0] * len(jobs)
    assert int(raw.hget(f"{queue}:stats", "crashes") or 0) == sum(crashes(raw, queue, holders))
    assert not any(ledger().starts[str(number)] for number in range(100, 110))
    held.unlink()
    wait_until(lambda: not raw.hlen(f"{queue}:messages"), "all run in the end", 30)
    assert [ledger().starts[str(number)] for number in range(100, 110)] == [1] * len(jobs)
    if queue == "slow":
        assert {ledger().pids[str(number)] for number in range(100, 110)} == {worker.process.pid}, "none ran apart"
    assert raw.zcard(f"{queue}:queue:dlq") == 0


@pytest.mark.chaos
def test_what_kills_its_workers_charges_nobody_behind_it(
    start_worker: Start, app: RedisQ, raw: redis.Redis, ledger: Callable[[], Ledger]
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
        assert max(crashes(raw, "slow", jobs)) == 0
        return raw.hlen("slow:messages") == len(poisons) == raw.zcard("slow:queue:dlq")

    wait_until(look, "all run but the poisons", 90)
    assert deaths <= 2 * len(poisons), "twice it runs beside others, then apart"
    assert [ledger().starts[str(number)] for number in range(100, 110)] == [1] * len(jobs)


@THREADS_OR_PROCESSES
class TestOneThatWaits:
    """A worker whose threads or processes are all busy, and one message that there is no room for."""

    @pytest.fixture
    def worker(
        self, queue: str, holds: str, room: int, start_worker: Start, app: RedisQ, held: Path, ledger: Callable[[], Ledger]
    ) -> WorkerProcess:
        worker = start_worker("-Q", queue, "-c", "30", "-t", "1", "--shutdown-timeout", "3", "-n", "w", **LEASE).ready()
        for number in range(room):
            app.send(holds, (number, str(held)))
        wait_until(lambda: len(ledger().starts) == room, "all are busy")
        return worker

    @pytest.fixture
    def job(self, queue: str, waits: str, worker: WorkerProcess, app: RedisQ) -> Job:
        return app.send(waits, (7, 0.0) if queue == "slow" else (7,))

    def test_begins_when_there_is_room(
        self, queue: str, job: Job, raw: redis.Redis, held: Path, ledger: Callable[[], Ledger]
    ) -> None:
        held.unlink()
        wait_until(lambda: not raw.hlen(f"{queue}:messages"), "all end")
        assert ledger().starts["7"] == 1
        assert not raw.hget(f"{queue}:stats", "crashes")

    def test_stays_in_its_queue_when_the_worker_stops(
        self, queue: str, job: Job, worker: WorkerProcess, raw: redis.Redis, held: Path, ledger: Callable[[], Ledger]
    ) -> None:
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("Stopping: ")
        held.unlink()
        assert worker.wait() == 0
        assert job.state() is State.WAITING
        assert crashes(raw, queue, [job]) == [0]
        assert not ledger().starts["7"]
