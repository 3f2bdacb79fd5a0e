"""A program of its own that opens and closes many connections, and says what that left in it."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import kombu

from tests.integration.kombu_client import Sink, publish

NEWS = kombu.Exchange("news", type="fanout")


def resident_kb() -> int:
    """Memory of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def connect(url: str) -> None:
    """Open, send and hear, close."""
    with kombu.Connection(url) as connection:
        sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", NEWS), no_ack=True)
        with sink.consumer:
            publish(connection, 1)
            connection.Producer(exchange=NEWS).publish(2)
            assert sorted(sink.drain(2)) == [1, 2]


def main(url: str) -> None:
    """Print how many threads and KB a thousand connections leave, after five hundred."""
    for _ in range(500):
        connect(url)
    threads, before = threading.active_count(), resident_kb()
    for _ in range(1000):
        connect(url)
    print(threading.active_count() - threads, resident_kb() - before)


if __name__ == "__main__":
    main(sys.argv[1])
