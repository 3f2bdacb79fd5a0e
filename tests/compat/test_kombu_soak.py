"""Many reconnects of the kombu transport: nothing is left behind, in this process or on the server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import kombu
import pytest

from tests.compat.thousand import NEWS, resident_kb
from tests.integration.kombu_client import Sink, publish
from tests.servers import RedisServer


def _url(server: RedisServer) -> str:
    return server.url().replace("redis://", "redisq://")


def _queues() -> list[kombu.Queue]:
    return [kombu.Queue("q"), kombu.Queue("f", NEWS)]


@pytest.mark.compat
@pytest.mark.timeout(180)
def test_a_thousand_connections_leave_nothing_behind(server: RedisServer) -> None:
    # In a process of its own: the memory of this one is that of all tests that ran in it.
    run = subprocess.run([sys.executable, "-m", "tests.compat.thousand", _url(server)], check=True, capture_output=True, text=True)
    threads, kilobytes = map(int, run.stdout.split())
    assert threads == 0
    with server.client() as raw:
        assert len(raw.client_list()) == 1
    assert kilobytes < 5000


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
            before, most = resident_kb(), clients()
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
            assert resident_kb() - before < 5000
