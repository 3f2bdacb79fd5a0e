"""kombu's stock Redis transport against redisq's, in one run: publish, drain, idle to callback; in turns:
medians (least to most).

    python -m benchmarks.compare.kombu_transports [--messages 5000] [--rounds 3]

Needs a redis-server; starts its own.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import kombu

import redisq.kombu  # noqa: F401 - its import makes the scheme known
from tests.servers import RedisServer

SCHEMES = ("redis", "redisq")
BODY = {"chat": 42, "text": "x" * 100}


def _connect(server: RedisServer, scheme: str) -> kombu.Connection:
    return kombu.Connection(server.url().replace("redis://", f"{scheme}://"))


def publish(server: RedisServer, scheme: str, messages: int) -> float:
    """Messages a second, one by one, to a queue of the default exchange."""
    with _connect(server, scheme) as connection:
        producer = connection.Producer()
        producer.publish(BODY, routing_key="q")
        started = time.perf_counter()
        for _ in range(messages):
            producer.publish(BODY, routing_key="q")
        return messages / (time.perf_counter() - started)


def publish_batch(server: RedisServer, scheme: str, messages: int) -> float:
    """The same, gathered by `Producer.batch()`."""
    with _connect(server, scheme) as connection:
        producer = connection.Producer()
        started = time.perf_counter()
        with producer.batch():
            for _ in range(messages):
                producer.publish(BODY, routing_key="q")
        return messages / (time.perf_counter() - started)


def drain(server: RedisServer, scheme: str, messages: int) -> float:
    """Messages a second of what the publications left, until Redis has the last acknowledgement."""
    with _connect(server, scheme) as connection:
        seen = 0

        def take(_body: object, message: kombu.Message) -> None:
            nonlocal seen
            message.ack()
            seen += 1

        with connection.Consumer([kombu.Queue("q")], callbacks=[take], prefetch_count=100):
            connection.drain_events(timeout=5)
            started, before = time.perf_counter(), seen
            while seen < messages:
                connection.drain_events(timeout=5)
            with server.client() as client:
                # One more message than was wanted is there, and may be held.
                while client.hlen("unacked") + client.zcard("q:queue:processing") > 1:
                    time.sleep(0.001)
            return (seen - before) / (time.perf_counter() - started)


def idle(server: RedisServer, scheme: str, _messages: int) -> float:
    """Median milliseconds from a publication to its callback, one at a time, to a consumer that waits."""
    took: list[float] = []
    done = threading.Event()

    def consume() -> None:
        def take(body: float, message: kombu.Message) -> None:
            took.append(time.perf_counter() - body)
            message.ack()
            done.set()

        with _connect(server, scheme) as connection, connection.Consumer([kombu.Queue("idle")], callbacks=[take]):
            while len(took) < 200:
                connection.drain_events(timeout=10)

    thread = threading.Thread(target=consume)
    thread.start()
    with _connect(server, scheme) as connection:
        producer = connection.Producer()
        for _ in range(200):
            done.clear()
            time.sleep(0.003)
            producer.publish(time.perf_counter(), routing_key="idle")
            done.wait(5)
    thread.join()
    return statistics.median(took) * 1000


MEASURES: tuple[tuple[str, Callable[[RedisServer, str, int], float]], ...] = (
    ("publish, messages/s", publish),
    ("drain, messages/s", drain),
    ("publish in batches, messages/s", publish_batch),
    ("idle to callback, ms (less is better)", idle),
)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with RedisServer() as server:
        for _ in range(options.rounds):
            for scheme in SCHEMES:
                with server.client() as client:
                    client.flushall()
                for name, measure in MEASURES:
                    found.setdefault((name, scheme), []).append(measure(server, scheme, options.messages))
    print("| | stock `redis://` | `redisq://` | ratio |\n|---|---|---|---|")
    for name, _ in MEASURES:
        stock, ours = (statistics.median(found[name, scheme]) for scheme in SCHEMES)
        cells = " | ".join(
            f"{statistics.median(all_):,.2f} ({min(all_):,.2f} to {max(all_):,.2f})"
            for all_ in (found[name, each] for each in SCHEMES)
        )
        print(f"| {name} | {cells} | {ours / stock:.2f} |")


if __name__ == "__main__":
    main()
