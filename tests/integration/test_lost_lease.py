"""A lease that is another's, or nobody's: what runs under it is stopped as far as that is possible, what waits is not begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from redisq import Middleware, RedisQ, Worker
from redisq.app.middleware import End
from redisq.errors import SoftTimeout
from redisq.message import Delivery
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, has_died, wait_until

Start = Callable[..., WorkerProcess]


def test_a_handler_in_a_process_is_killed(start_worker: Start, redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    app = bot.app.at(url=redis_url)
    worker = start_worker("-Q", "apart", BOT_LEASE="3").ready()
    app.send("sleep_in_a_process", (1,))
    wait_until(lambda: Ledger(tmp_path / "ledger").pids.get("1"), "started")
    give_to_another(raw, "apart")
    worker.wait_for_log("Lost the lease of task sleep_in_a_process")
    wait_until(lambda: has_died(Ledger(tmp_path / "ledger").pids["1"]), "its process is killed", 5)
    app.send("in_a_process", (2,)).get(timeout=20)
    assert "SIGKILL" not in worker.text(), "that was no crash"
    app.close()


def test_a_handler_in_a_thread_is_told(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    worker = start_worker("-Q", "slow", "-t", "1", BOT_LEASE="3").ready()
    producer.tasks["until_told"].delay(1)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    give_to_another(raw, "slow")
    wait_until(lambda: ("X", "1") in Ledger(tmp_path / "ledger").times, "the handler was told")
    producer.tasks["sleep_sync"].delay(3, 0.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["3"], "the thread is free again")
    assert "failed" not in worker.text()


def give_to_another(raw: redis.Redis, queue: str) -> None:
    """As if a claim of another worker had taken back all that is leased, and had got it."""
    for job_id, record in raw.hgetall(f"{queue}:leases").items():
        fence, place, *_ = record.split(b" ")
        raw.hset(f"{queue}:leases", job_id, b"%d %s another" % (int(fence) + 1, place))


class Claims(Middleware):
    """Notes which messages were claimed, and which leases were lost."""

    def __init__(self) -> None:
        self.claimed: list[str] = []
        self.missed: list[str] = []

    def claim(self, queue: str, delivery: Delivery) -> None:
        self.claimed.append(delivery.id)

    def lost(self, end: End) -> None:
        self.missed.append(end.id)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_that_does_not_stop_keeps_its_slot_when_another_worker_has_its_message(
    kind: str, redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redisq.worker.timeouts.GRACE", 2.0)
    claims = Claims()
    app = RedisQ("bot", url=redis_url, middleware=[claims])
    begun: list[int] = []
    marked = threading.Event()
    free = threading.Event()

    def hold(number: int) -> None:
        begun.append(number)
        while number == 1 and not free.is_set():
            with suppress(SoftTimeout):
                free.wait(0.01)

    async def hold_async(number: int) -> None:
        begun.append(number)
        while number == 1 and not free.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def mark_async() -> None:
        marked.set()

    handlers = {"sync": (hold, mark_async), "async": (hold_async, marked.set)}
    held, mark = (app.task(name=name, timeout=0.1)(handler) for name, handler in zip("hm", handlers[kind], strict=True))

    async def main() -> None:
        async with Worker(app, concurrency=1, threads=1):
            try:
                await held.adelay(1)
                await asyncio.to_thread(wait_until, lambda: begun, "it began")
                await asyncio.to_thread(give_to_another, raw, "bot")
                await asyncio.to_thread(wait_until, lambda: claims.missed, "its settlement was refused")
                assert not free.is_set()
                waits = await held.adelay(2)
                await mark.options(countdown=0.5).adelay()
                await asyncio.to_thread(marked.wait, 20)
                assert waits.id not in claims.claimed, "it stays in the queue while the handler of the first one runs"
                free.set()
                await asyncio.to_thread(wait_until, lambda: begun == [1, 2], "the slot is free")
            finally:
                free.set()
        await app.aclose()

    asyncio.run(main())
    app.close()
