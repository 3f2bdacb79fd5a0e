"""One kombu connection, used by several threads and by forked children."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import kombu
import redis

from redisq.kombu.session import Session
from redisq.kombu.transport import Transport
from tests.integration.kombu_client import Connect, Sink

THREADS = 8


def at_once(step: Callable[[int], object]) -> list[object]:
    """Carry out a step in several threads that begin together; its errors are raised here."""
    gate = threading.Barrier(THREADS)

    def run(number: int) -> object:
        gate.wait()
        return step(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_threads_that_use_a_connection_first_share_one_session(connect: Connect) -> None:
    for _ in range(10):
        sessions = at_once(partial(_session, connect().transport))
        assert len(set(map(id, sessions))) == 1


def _session(transport: Transport, _thread: int) -> Session:
    return transport.session


def test_what_threads_publish_through_one_channel_arrives(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    exchange = kombu.Exchange("x", type="topic")
    channel = connection.default_channel

    def publish(thread: int) -> None:
        producer = kombu.Producer(channel, exchange=exchange)
        for number in range(40):
            queue = kombu.Queue(f"q{number % 3}", exchange, routing_key=f"k{number % 3}.#", expires=60)
            producer.publish((thread, number), routing_key=f"k{number % 3}.x", declare=[queue])

    at_once(publish)
    assert sum(raw.zcard(f"q{number}:queue:main") for number in range(3)) == THREADS * 40


def test_channels_open_and_close_while_others_publish_and_one_consumes(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    sink = Sink(connection)

    def publish(thread: int) -> None:
        for number in range(20):
            with connection.channel() as channel:
                kombu.Producer(channel).publish((thread, number), routing_key="q")

    with sink.consumer, ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(at_once, publish)
        assert len(sink.drain(THREADS * 20)) == THREADS * 20
        publishing.result()
    connection.release()
    assert raw.hlen("q:messages") == 0


def test_each_channel_has_consumer_tags_of_its_own(connect: Connect) -> None:
    """As in AMQP: a program that names its consumers may use a name on every channel."""
    connection = connect()
    came: list[tuple[str, str]] = []
    for queue in ("one", "two"):
        channel = connection.channel()
        channel.basic_consume(queue, True, lambda message, queue=queue: came.append((queue, message.payload)), "tag")
    for queue in ("one", "two"):
        connection.Producer().publish(queue, routing_key=queue)
    for _ in range(2):
        connection.drain_events(timeout=5)
    assert sorted(came) == [("one", "one"), ("two", "two")]
