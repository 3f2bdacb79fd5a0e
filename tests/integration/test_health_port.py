"""`--health-port`: what Kubernetes, or a person with curl, is told of a worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.integration.test_supervisor import children
from tests.servers import RedisServer, free_port

Start = Callable[..., WorkerProcess]
Get = Callable[[str], tuple[int, Any]]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def get(port: int) -> Get:
    """Ask for a path; status 0: nobody answers."""

    def get(path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    return get


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(append_only=True) as server:
        yield server


def health(port: int) -> tuple[str, ...]:
    return "--health-port", str(port), "--health-host", "127.0.0.1"


def test_a_worker_is_ready_while_redis_answers_and_alive_also_when_it_does_not(
    start_worker: Start, server: RedisServer, port: int, get: Get
) -> None:
    worker = start_worker("-Q", "work", *health(port), url=server.url())
    wait_until(lambda: get("/ready") == (200, {"ready": True}), "ready")
    assert get("/live") == (200, {"live": True})
    server.kill()
    wait_until(lambda: get("/ready")[0] == 503, "not ready without Redis", 5)
    assert get("/ready")[1]["why"].startswith("Redis has been away for ")
    assert get("/live")[0] == 200
    server.start()
    wait_until(lambda: get("/ready")[0] == 200, "ready again", 5)
    assert worker.terminate() == 0


def test_a_worker_without_redis_from_the_start_is_alive_and_says_what_it_waits_for(
    start_worker: Start, port: int, get: Get
) -> None:
    worker = start_worker("-Q", "work", *health(port), url=f"redis://127.0.0.1:{free_port()}")
    wait_until(lambda: "Redis has been away" in get("/ready")[1].get("why", ""), "it says why")
    assert get("/live")[0] == 200
    assert worker.terminate() == 0


def test_frozen_server_makes_a_worker_not_ready_within_two_seconds(
    start_worker: Start, server: RedisServer, port: int, get: Get
) -> None:
    start_worker("-Q", "work", *health(port), url=server.url())
    wait_until(lambda: get("/ready")[0] == 200, "ready")
    with server.frozen():
        began = time.monotonic()
        wait_until(lambda: get("/ready")[0] == 503, "not ready without an answer")
        assert time.monotonic() - began < 2.5, "two seconds, and what this machine takes"
        assert get("/ready")[1]["why"] == "Redis has been away for 2 s"
        assert get("/live")[0] == 200
    wait_until(lambda: get("/ready")[0] == 200, "ready again")


def test_worker_stays_ready_while_a_server_is_slow(start_worker: Start, server: RedisServer, port: int, get: Get) -> None:
    start_worker("-Q", "work", *health(port), url=server.url())
    wait_until(lambda: get("/ready")[0] == 200, "ready")
    told = set()
    for _ in range(3):
        with server.frozen():
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                told.add(get("/ready")[0])
        with server.client() as client:
            client.ping()
    assert told == {200}


def test_worker_with_all_slots_taken_stays_ready(
    start_worker: Start, server: RedisServer, producer: RedisQ, port: int, get: Get, redis_url: str, tmp_path: Path
) -> None:
    """It asks Redis nothing for seconds, and is well."""
    start_worker("-Q", "slow", "-c", "1", *health(port)).ready()
    producer.tasks["sleep"].delay(1, 3.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    told = set()

    def ended() -> bool:
        told.add(get("/ready")[0])
        return bool(Ledger(tmp_path / "ledger").ends["1"])

    wait_until(ended, "ended")
    assert told == {200}


def test_a_worker_that_drains_is_alive_and_not_ready(
    start_worker: Start, producer: RedisQ, port: int, get: Get, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "slow", *health(port)).ready()
    producer.tasks["sleep"].delay(1, 60.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "started")
    worker.signal(signal.SIGTERM)
    told = time.monotonic()
    wait_until(lambda: get("/ready") == (503, {"ready": False, "why": "stopping"}), "stopping")
    assert get("/live")[0] == 200
    worker.signal_again(signal.SIGTERM, told)
    assert worker.wait(10) == 0
    assert get("/live")[0] == 0


@pytest.mark.chaos
def test_a_handler_that_blocks_the_loop_makes_it_not_ready_and_leaves_it_alive(
    start_worker: Start, producer: RedisQ, port: int, get: Get
) -> None:
    start_worker("-Q", "slow", *health(port)).ready()
    producer.tasks["block_the_loop"].delay(1, 9.0)
    wait_until(lambda: get("/ready")[1].get("why", "").startswith("the event loop has been blocked for "), "not ready")
    assert get("/live") == (200, {"live": True})
    wait_until(lambda: get("/ready")[0] == 200, "ready again")


def test_a_supervisor_answers_for_all_its_processes(start_worker: Start, port: int, get: Get) -> None:
    worker = start_worker("-Q", "work", "-w", "2", *health(port))
    good = {"ready": True}
    wait_until(lambda: get("/ready") == (200, {"ready": True, "processes": {"0": good, "1": good}}), "both ready")
    assert get("/live")[0] == 200
    frozen = children(worker)[0]
    os.kill(frozen, signal.SIGSTOP)
    wait_until(lambda: get("/ready")[0] == 503, "one does not answer", 5)
    about = get("/ready")[1]
    assert about["why"] == "not ready: 1 of 2 processes"
    assert {"ready": True} in about["processes"].values()
    assert {"why": "it does not answer"} in about["processes"].values()
    assert get("/live")[0] == 200
    os.kill(frozen, signal.SIGKILL)
    wait_until(lambda: get("/ready")[0] == 200, "another took its place")
    assert worker.terminate() == 0
    assert get("/live")[0] == 0


def test_a_port_that_is_taken_is_said_in_one_line(start_worker: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = start_worker("-Q", "work", *health(taken.getsockname()[1]))
        assert worker.wait() == 78
    assert "Error: ConfigError: cannot listen on" in worker.text()
    assert "Traceback" not in worker.text()


def test_slow_and_silent_clients_hurt_nobody(start_worker: Start, producer: RedisQ, port: int, get: Get, raw: Any) -> None:
    start_worker("-Q", "work", *health(port)).ready()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    try:
        for each in silent:
            each.sendall(b"GET /ready HTTP/1.1\r\nX: ")
        assert get("/ready")[0] == 200
        producer.tasks["short"].delay(1)
        wait_until(lambda: raw.hget("work:stats", "processed_requests") == b"1", "the worker works")
        began = time.monotonic()
        assert silent[0].recv(100) == b"", "it is not waited for"
        assert time.monotonic() - began < 10
    finally:
        for each in silent:
            each.close()


@pytest.mark.chaos
@pytest.mark.parametrize("queues", ["work", "work,mail"])
def test_a_worker_that_may_not_claim_is_not_ready_and_says_so_once(
    queues: str, start_worker: Start, raw: redis.Redis, port: int, get: Get
) -> None:
    worker = start_worker("-Q", queues, *health(port)).ready()
    wait_until(lambda: get("/ready") == (200, {"ready": True}), "ready")
    for number, queue in enumerate(queues.split(",")):
        raw.set(f"{queue}:queue:main", "another program wrote the rest")
        why = f"Redis refuses queue {', '.join(queues.split(',')[: number + 1])}: see the log"
        wait_until(lambda why=why: get("/ready") == (503, {"ready": False, "why": why}), "not ready, be it for one queue")

    def refused() -> int:
        calls: int = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        return calls

    before = refused()
    wait_until(lambda: refused() > before + 3, "it tries on")
    assert worker.text().count("ERROR") == len(queues.split(",")), worker.text()
    assert "ERROR - Cannot claim from queue work, trying again: claim on queue work: " in worker.text()
    for queue in queues.split(","):
        assert get("/ready")[0] == 503
        raw.delete(f"{queue}:queue:main")
    wait_until(lambda: get("/ready")[0] == 200, "ready again")
    worker.wait_for_log("Can claim from queue work again, after")
    assert worker.terminate() == 0
