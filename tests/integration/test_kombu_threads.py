"""One kombu connection, used by several threads and by forked children."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import kombu
import pytest
import redis

from redisq.kombu.session import Session
from redisq.kombu.transport import Transport
from tests.integration.kombu_client import Connect, Sink

THREADS = 8

#: Holds messages, rejects one and claims more; while both calls are on their way, a greenlet computes for longer than the lease.
_COMPUTES = """
import json, sys, time
url, library = sys.argv[1:]
if library == "gevent":
    import gevent.monkey
    gevent.monkey.patch_all()
else:
    import eventlet
    eventlet.monkey_patch()
import threading
from contextlib import suppress
import kombu, redisq.kombu

connection = kombu.Connection(url, transport_options={"lease": 3})
channel = connection.default_channel
channel.basic_qos(0, 4, False)
came = []
consumer = connection.Consumer([kombu.Queue("q")], callbacks=[lambda body, message: came.append(message)])

def reject():
    came[0].requeue()

def claim():
    came[1].ack()
    came[2].ack()
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.5)

def compute():
    print("computes", flush=True)
    till = time.monotonic() + 5
    while time.monotonic() < till:
        sum(range(1000))

with consumer:
    while len(came) < 4:
        connection.drain_events(timeout=5)
    greenlets = [threading.Thread(target=step) for step in (reject, claim, compute)]
    for greenlet in greenlets:
        greenlet.start()
    for greenlet in greenlets:
        greenlet.join()
    print(json.dumps([message.payload for message in came]), flush=True)
    for message in came:
        if not message.acknowledged:
            message.ack()
connection.release()
"""


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


def test_message_that_another_thread_acknowledges_lets_the_next_one_come_at_once(connect: Connect) -> None:
    """Celery's gevent and eventlet pools do so with each task, and have no event loop of kombu's."""
    connection = connect()
    connection.default_channel.basic_qos(0, 1, False)
    for number in range(20):
        connection.Producer().publish(number, routing_key="q")
    sink = Sink(connection, ack=False)
    sink.consumer.register_callback(lambda _, message: threading.Timer(0.01, message.ack).start())
    with sink.consumer:
        began = time.monotonic()
        assert sink.drain(20, 30) == list(range(20))
    # A look every half second takes ten.
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlet_that_computes_while_calls_are_on_their_way_costs_no_lease(connect: Connect, redis_url: str, library: str) -> None:
    """A lock held across a call, or a claim whose answer nobody reads in time, must not hand a message out twice."""
    connection = connect(lease=3)
    for number in range(12):
        connection.Producer().publish(number, routing_key="q")
    url = redis_url.replace("redis://", "redisq://")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _COMPUTES, url, library], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "computes\n"
        sink = Sink(connection)
        with sink.consumer:
            while program.poll() is None:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
        others = json.loads(program.stdout.readline())
    # The one that was rejected comes again.
    assert sorted(others + sink.bodies) == sorted([*range(12), others[0]])
