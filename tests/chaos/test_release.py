"""A worker is killed while it gives back messages that waited for a thread: before Redis hears it, and before its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from redisq.app.job import Job
from redisq.broker import commands
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.wire import CuttingProxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

LEASE = {"BOT_LEASE": "3"}
QUICK, THREADS, BEHIND = 1000, 2, range(2000, 2030)


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = bot.app.at(url=redis_url)
    yield app
    app.close()


@pytest.fixture
def proxy(raw: redis.Redis) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(raw.connection_pool.connection_kwargs["port"])
    yield proxy
    proxy.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start(url: str) -> WorkerProcess:
        started.append(WorkerProcess(url, tmp_path, "-Q", "slow", "-c", "100", "-t", str(THREADS), **LEASE))
        return started[-1].ready()

    yield start
    for worker in started:
        worker.kill()


def crashes(raw: redis.Redis, job: Job) -> int:
    meta = raw.hget("slow:meta", job.id) or b""
    return int(meta.partition(b"crashes=")[2].partition(b" ")[0] or 0)


@pytest.mark.parametrize(
    ("lost", "at"),
    # While the worker takes its threads for quick, it leases anew, in the same trip, what it gives back.
    [("request", 1), ("reply", 1), ("reply", 2), ("reply", 3)],
    ids=["not heard", "not answered", "not answered the second time", "not answered the third time"],
)
def test_what_a_killed_worker_was_giving_back_is_not_lost_and_charged_once_at_most(
    lost: str,
    at: int,
    start: Callable[[str], WorkerProcess],
    app: RedisQ,
    proxy: CuttingProxy,
    raw: redis.Redis,
    redis_url: str,
    tmp_path: Path,
) -> None:
    held = tmp_path / "held"
    held.touch()
    # Threads that are as quick as this have messages leased ahead, and then they are held up.
    app.tasks["sleep_sync"].delay_many([(number, 0.0) for number in range(QUICK)])
    holders = app.tasks["hold"].delay_many([(QUICK + number, str(held)) for number in range(THREADS)])
    behind = dict(zip(BEHIND, app.tasks["sleep_sync"].delay_many([(number, 0.0) for number in BEHIND]), strict=True))
    # A settlement names the reason once for each message.
    silent = proxy.swallow(lost, b"\r\nnot_begun\r\n", (at - 1) * len(behind) + 1)
    ours = len(raw.client_list())
    worker = start(redis_url.replace(f":{raw.connection_pool.connection_kwargs['port']}", f":{proxy.port}"))

    def released() -> int:
        return int(raw.hget("slow:stats", "released") or 0)

    def all_is_given_back() -> bool:
        """Return whether Redis has what waited; the worker may give it back before the proxy sees that."""
        return released() > 0 and raw.zcard("slow:queue:processing") == THREADS

    wait_until(lambda: silent.is_set() or all_is_given_back(), "messages that wait for a thread go back", 30)
    worker.kill()
    wait_until(lambda: len(raw.client_list()) <= ours, "Redis has carried out all that the worker sent, and knows that it is gone")

    begun = Ledger(tmp_path / "ledger").starts
    jobs = [*holders, *(job for number, job in behind.items() if not begun[str(number)])]
    leased = {ident.decode() for ident in raw.zrange("slow:queue:processing", 0, -1)}
    print(f"{lost} {at}: {released()} releases, {len(leased)} leased at the kill, of {len(jobs)} that are left")
    assert bool(released()) is (lost == "reply")
    assert {job.id for job in holders} <= leased
    assert {crashes(raw, job) for job in jobs} == {0}, "nobody is charged for a worker that lives"

    # All leases end, and nobody runs what comes back.
    look = commands.claim(app.keys("slow"), worker="looks", limit=0, lease=3_000_000, max_crashes=3)

    def all_are_back() -> bool:
        app.connector.execute(look)
        return raw.zcard("slow:queue:processing") == 0

    wait_until(all_are_back, "the leases of the killed worker end", 30)
    for job in jobs:
        assert crashes(raw, job) == int(job.id in leased), "one death is one crash, of what was leased"
        assert raw.hexists("slow:messages", job.id), "it is lost"
        assert raw.zscore("slow:queue:main", job.id) is not None, "it waits again"

    held.unlink()
    start(redis_url)
    wait_until(lambda: not raw.hlen("slow:messages"), "all run", 60)
    ledger = Ledger(tmp_path / "ledger")
    assert all(ledger.ends[str(number)] for number in (*behind, *range(QUICK, QUICK + THREADS)))
    assert {ledger.ends[str(number)] for number in behind if not begun[str(number)]} == {1}, "what had not begun runs once"
    assert raw.zcard("slow:queue:dlq") == 0
