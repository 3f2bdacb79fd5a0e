"""Redis goes away and comes back: the worker says so once, goes on, and nothing is lost or run twice for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redisq import RedisQ
from redisq.broker.commands import inspect
from redisq.errors import BrokerUnavailable
from tests.integration import bot
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.servers import RedisServer

TASKS = 3000


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    server = RedisServer(append_only=True)
    server.start()
    yield server
    server.close()


@pytest.fixture
def app(durable_server: RedisServer) -> Iterator[RedisQ]:
    app = RedisQ("bot_logic", url=durable_server.url(), timeout=1)
    app.task(name="short", queue="work")(bot.short.handler)
    for task in (bot.hold, bot.sleep_sync):
        app.task(name=task.name, queue="slow")(task.handler)
    yield app
    app.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_redis_restarts_in_mid_work(
    how: str, durable_server: RedisServer, app: RedisQ, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    app.tasks["short"].delay_many([(number,) for number in range(TASKS)])
    worker = start_worker("-Q", "work", "-c", "5", url=durable_server.url()).ready()

    def processed() -> int:
        with durable_server.client() as client:
            return int(client.hget("work:stats", "processed_requests") or 0)

    wait_until(lambda: processed() > TASKS // 4, "a quarter done")
    getattr(durable_server, how)()
    worker.wait_for_log("Lost Redis connection")
    durable_server.start()
    wait_until(lambda: processed() == TASKS, "all done", 60)
    worker.wait_for_log("Redis connection is back")
    ledger = Ledger(tmp_path / "ledger")
    assert len(ledger.ends) == TASKS
    assert set(ledger.ends.values()) == {1}
    assert worker.text().count("Lost Redis connection") == 1
    assert worker.terminate() == 0


@pytest.mark.chaos
@pytest.mark.parametrize("comes_back", [True, False], ids=["and it comes back", "and the worker is told to stop"])
def test_redis_goes_away_while_there_is_no_thread_for_a_message(
    comes_back: bool, durable_server: RedisServer, app: RedisQ, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    options = ("-Q", "slow", "-c", "5", "-t", "1", "--shutdown-timeout", "1")
    worker = start_worker(*options, url=durable_server.url()).ready()
    app.tasks["hold"].delay(1, str(held))
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "one has the thread")
    app.tasks["sleep_sync"].delay(2, 0.0)
    durable_server.stop()
    worker.wait_for_log("Lost Redis connection")
    held.unlink()
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"], "the thread is free")
    if comes_back:
        durable_server.start()
        wait_until(lambda: Ledger(tmp_path / "ledger").ends["2"], "it runs")
    assert worker.terminate() == 0
    assert Ledger(tmp_path / "ledger").starts["2"] == comes_back, "nobody begins it without Redis"


def test_every_connection_is_cut_again_and_again(
    durable_server: RedisServer, app: RedisQ, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    worker = start_worker("-Q", "work", "-c", "5", url=durable_server.url()).ready()
    with durable_server.client() as client:
        for round_ in range(20):
            app.tasks["short"].delay_many([(number,) for number in range(round_ * 50, (round_ + 1) * 50)])
            client.client_kill_filter(_type="normal", skipme=True)
            wait_until(
                lambda wanted=(round_ + 1) * 50: int(client.hget("work:stats", "processed_requests") or 0) == wanted, "round done"
            )
    assert set(Ledger(tmp_path / "ledger").ends.values()) == {1}
    assert worker.terminate() == 0


def test_a_producer_gets_a_typed_error_after_its_own_timeout(durable_server: RedisServer, app: RedisQ) -> None:
    durable_server.kill()
    with pytest.raises(BrokerUnavailable, match=r"enqueue on queue work: .*is Redis running"):
        app.tasks["short"].delay(1)
    durable_server.start()
    app.tasks["short"].delay(1)
    assert app.connector.execute(inspect(app.keys("work"))).waiting == 1


def test_scripts_flushed_under_a_worker_are_loaded_again(
    durable_server: RedisServer, app: RedisQ, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker("-Q", "work", url=durable_server.url()).ready()
    with durable_server.client() as client:
        for number in range(1, 6):
            client.script_flush()
            app.tasks["short"].delay(number)
            wait_until(lambda wanted=b"%d" % number: client.hget("work:stats", "processed_requests") == wanted, "processed")
