"""Many reconnects of the kombu transport: nothing is left behind, in this process or on the server."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import kombu
import pytest

from tests.integration.kombu_client import Sink, publish
from tests.servers import RedisServer

NEWS = kombu.Exchange("news", type="fanout")


def _url(server: RedisServer) -> str:
    return server.url().replace("redis://", "redisq://")


def _resident_kb() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _queues() -> list[kombu.Queue]:
    return [kombu.Queue("q"), kombu.Queue("f", NEWS)]


@pytest.mark.compat
@pytest.mark.timeout(180)
def test_a_thousand_connections_leave_nothing_behind(server: RedisServer) -> None:
    def connect() -> None:
        with kombu.Connection(_url(server)) as connection:
            sink = Sink(connection, *_queues(), no_ack=True)
            with sink.consumer:
                publish(connection, 1)
                connection.Producer(exchange=NEWS).publish(2)
                assert sorted(sink.drain(2)) == [1, 2]

    for _ in range(500):
        connect()
    threads, before = threading.active_count(), _resident_kb()
    for _ in range(1000):
        connect()
    assert threading.active_count() == threads
    with server.client() as raw:
        assert len(raw.client_list()) == 1
    assert _resident_kb() - before < 5000


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_consumer_goes_on_for_a_minute_of_cut_connections(server: RedisServer) -> None:
    """`CLIENT KILL` of every connection, each second; once in the middle, a hundred times in a row."""
    with kombu.Connection(_url(server)) as connection, kombu.Connection(_url(server)) as publisher:
        sink = Sink(connection, *_queues())
        stop = threading.Event()
        # At least once: an acknowledgement may have been on its way.
        missing: set[int] = set()

        def kill() -> None:
            with server.client() as raw:
                while not stop.wait(1):
                    raw.client_kill_filter(_type="normal", skipme=True)

        def clients() -> int:
            with server.client() as raw:
                return len(raw.client_list())

        def turn(number: int) -> None:
            missing.add(number)
            publish(publisher, number)
            hear()

        def hear() -> None:
            missing.difference_update(sink.drain(1, seconds=3))
            sink.messages.clear()

        with sink.consumer:
            for number in range(1000):
                turn(number)
            before, most = _resident_kb(), clients()
            killer = threading.Thread(target=kill)
            killer.start()
            until = time.monotonic() + 60
            number = 1000
            while time.monotonic() < until:
                turn(number)
                number += 1
            stop.set()
            killer.join()
            with server.client() as raw:
                for more in range(100):
                    raw.client_kill_filter(_type="normal", skipme=True)
                    turn(number + more)
            while missing:
                hear()
            assert clients() <= most
            assert _resident_kb() - before < 5000
