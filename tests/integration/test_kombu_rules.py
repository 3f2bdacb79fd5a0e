"""The rules of a queue reach Redis whatever happens between; messages that others made odd end no loop."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
import redis
from kombu.asynchronous.hub import Hub

from redisq.broker.commands import Enqueue, enqueue
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys
from redisq.codec.envelope import pack
from tests.integration.kombu_client import Connect, Sink, get, publish
from tests.integration.processes import wait_until
from tests.servers import RedisServer

KEYS = QueueKeys("q")
BOUNDED = kombu.Queue("q", kombu.Exchange("x"), routing_key="k", expires=60)


def _send(connection: kombu.Connection, body: Any = 1) -> None:
    connection.Producer(exchange=BOUNDED.exchange).publish(body, routing_key="k")


def test_rules_are_said_again_when_the_first_use_of_a_queue_failed(connect: Connect) -> None:
    with RedisServer() as server:
        url = server.url().replace("redis://", "redisq://")
        connection = connect(url, socket_timeout=0.5)
        channel = connection.default_channel
        BOUNDED(channel).queue_declare()
        server.kill()
        with pytest.raises(connection.connection_errors):
            publish(connection, 1)
        server.start()
        publish(connection, 2)
        with server.client() as raw:
            assert raw.ttl("q:messages") > 0
        connection.release()


def test_rules_survive_a_batch_that_was_given_up(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    producer = connection.Producer()
    BOUNDED(connection.default_channel).queue_declare()
    batch = producer.batch()
    batch.__enter__()
    producer.publish(1, routing_key="q")
    batch.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not raw.exists("q:messages")
    with producer.batch():
        for number in range(10):
            producer.publish(number, routing_key="q")
    assert raw.ttl("q:messages") > 0
    # Said once, and the ten went together.
    assert raw.zcard("q:queue:main") == 10
    calls = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    with producer.batch():
        for number in range(10):
            producer.publish(number, routing_key="q")
    assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1


def test_a_queue_that_expired_and_is_used_again_expires_again(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    kombu.Queue("q", expires=0.3)(connection.default_channel).queue_declare()
    for _ in range(2):
        publish(connection, 1)
        assert raw.exists("q:messages")
        wait_until(lambda: not raw.exists("q:messages"), "it is gone")


def test_a_queue_is_not_deleted_under_its_own_consumer_if_it_must_be_unused(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    sink = Sink(connection)
    publish(connection, 1)
    with sink.consumer:
        assert connection.default_channel.queue_delete("q", if_unused=True) == 0
        assert sink.drain(1) == [1]
    publish(connection, 2)
    assert connection.default_channel.queue_delete("q", if_unused=True) == 1


def _message(**changes: Any) -> dict[str, Any]:
    good = {
        "body": "1", "content-type": "application/json", "content-encoding": "utf-8", "headers": {},
        "properties": {"delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": None},
    }  # fmt: skip
    return good | changes


ODD = {
    "an eta before all time": _message(headers={"eta": "0001-01-01T00:00:00"}),
    "an eta at the end of time": _message(headers={"eta": "9999-12-31T23:59:59.999999"}),
    "an eta that is a number": _message(headers={"eta": 1e300}),
    "headers that are a list": _message(headers=[1, 2]),
    "headers that are a number": _message(headers=7),
    "an encoding that nobody knows": _message(properties={"body_encoding": "rot13"}),
    "no properties": {"body": "1", "properties": {}},
    "a delivery_info that is text": _message(properties={"delivery_info": "x"}),
    "no body": _message(body=None),
    "properties with odd keys": _message(properties={"priority": [], "expiration": {}, "delivery_info": None}),
}


@pytest.mark.parametrize("message", ODD.values(), ids=ODD)
def test_an_odd_message_ends_no_loop(connect: Connect, redis_url: str, raw: redis.Redis, message: dict[str, Any]) -> None:
    """It is handed out, or a dead letter; what comes after it comes."""
    server = Server(redis_url).connector("test")
    server.execute(enqueue(KEYS, [Enqueue("x", pack(message, str))]))
    server.close()
    connection = connect()
    publish(connection, "after")
    hub = Hub()
    came: list[Any] = []

    def take(message: kombu.Message) -> None:
        came.append(message.body)
        message.ack()

    with connection.Consumer([kombu.Queue("q")], on_message=take):
        connection.register_with_event_loop(hub)
        while b"after" not in came:
            hub.run_once()
    connection.release()
    hub.close()
    assert len(came) + raw.zcard("q:queue:dlq") == 2


@pytest.mark.parametrize("eta", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "never", "", 7])
def test_an_odd_eta_is_published(connect: Connect, raw: redis.Redis, eta: Any) -> None:
    connection = connect()
    publish(connection, 1, headers={"eta": eta})
    if str(eta).startswith("9999"):
        assert raw.zcard("q:queue:delayed") == 1
    else:
        assert get(connection, no_ack=True).payload == 1


def test_sorted_queues_are_served_by_their_names(connect: Connect) -> None:
    connection = connect(queue_order_strategy="sorted")
    names = ["c", "b", "a"]
    for name in names:
        publish(connection, name, name)
    sink = Sink(connection, *map(kombu.Queue, names))
    with sink.consumer:
        assert sink.drain(3) == sorted(names)
