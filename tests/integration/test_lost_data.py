"""The server lost its data: the workers say so, once an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from tests.integration.processes import WorkerProcess, wait_until
from tests.servers import RedisServer

Start = Callable[..., WorkerProcess]

SAID = "Redis has lost its data: key redisq:mark is not the one of before"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def said(worker: WorkerProcess) -> int:
    return worker.text().count(f"WARNING - {SAID}")


@pytest.mark.parametrize("how", ["FLUSHALL", "FLUSHDB", "restart without appendonly"])
def test_workers_say_once_an_event_that_the_data_are_gone(start_worker: Start, server: RedisServer, how: str) -> None:
    workers = [start_worker("-Q", "work", "-n", name, url=server.url()).ready() for name in ("one", "two")]

    def seen_by_all() -> bool:
        with server.client() as client:
            return client.exists("redisq:mark") == 1 and client.scard("redisq:workers") == 2

    wait_until(seen_by_all, "both have seen the mark")
    for events in (1, 2):
        if how.startswith("FLUSH"):
            with server.client() as client:
                client.execute_command(how)
        else:
            server.kill()
            server.start()
        wait_until(lambda events=events: [said(worker) for worker in workers] == [events] * 2, "both say it", 20)
    assert [worker.terminate() for worker in workers] == [0, 0]
    assert [said(worker) for worker in workers] == [2, 2]


def test_workers_say_nothing_when_the_data_are_there(start_worker: Start) -> None:
    with RedisServer(append_only=True) as server:
        worker = start_worker("-Q", "work", "-n", "one", url=server.url()).ready()

        def beats() -> int:
            with server.client() as client:
                calls: int = client.info("commandstats").get("cmdstat_sadd", {}).get("calls", 0)
            return calls

        wait_until(beats, "a sign of life")
        server.stop()  # killed, it may lose its last second
        server.start()
        wait_until(beats, "another one, after a restart", 20)
        assert worker.terminate() == 0
        assert "lost its data" not in worker.text()


def test_mark_expires_when_no_worker_is_left(start_worker: Start, redis_url: str, raw: redis.Redis) -> None:
    worker = start_worker("-Q", "work").ready()
    wait_until(lambda: raw.exists("redisq:mark"), "a mark")
    assert 0 < raw.ttl("redisq:mark") <= 24 * 3600
    assert worker.terminate() == 0
