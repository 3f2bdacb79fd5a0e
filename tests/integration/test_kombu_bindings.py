"""Exchanges and bindings reach Redis and last as long as they should, whatever happens between."""

from __future__ import annotations

import time
from typing import Any

import kombu
import pytest
import redis

from tests.integration.kombu_client import Connect, Sink, get, publish
from tests.integration.processes import wait_until
from tests.servers import RedisServer

TOPICS = kombu.Exchange("topics", type="topic")
NEWS = kombu.Exchange("news", type="fanout")


def _url(server: RedisServer) -> str:
    return server.url().replace("redis://", "redisq://")


def _send(connection: kombu.Connection, exchange: str, routing_key: str = "", body: Any = None) -> None:
    """Publish without saying what the exchange is."""
    channel = connection.default_channel
    message = channel.prepare_message(f'"{body or exchange}"', content_type="application/json")
    channel.basic_publish(message, exchange, routing_key)


def _routes(raw: redis.Redis, exchange: str = "topics") -> list[bytes]:
    return raw.zrangebyscore(f"redisq:exchange:{exchange}:routes", f"({time.time() * 1_000_000:.0f}", "+inf")


def test_what_could_not_be_declared_is_declared_when_it_is_tried_again(connect: Connect) -> None:
    with RedisServer() as server:
        connection = connect(_url(server), socket_timeout=0.3)
        queues = [kombu.Queue("q", TOPICS, routing_key="a.#"), kombu.Queue("f", NEWS)]
        channel = connection.default_channel
        TOPICS(channel)  # nothing is said yet
        server.kill()
        for queue in queues:
            with pytest.raises(connection.connection_errors):
                queue(channel).declare()
            # Not the exchange alone.
            with pytest.raises(connection.connection_errors):
                channel.queue_bind(queue.name, queue.exchange.name, "a.#")
        server.start()
        for queue in queues:
            queue(channel).declare()
        with server.client() as raw:
            assert _routes(raw) == [b'bind:["a.#", "q"]', b"type:topic"]
            assert _routes(raw, "news") == [b"type:fanout"]
        publisher = connect(_url(server))
        _send(publisher, "topics", "a.b")
        _send(publisher, "news")
        sink = Sink(connection, *queues)
        with sink.consumer:
            assert sorted(sink.drain(2)) == ["news", "topics"]
        connection.release()
        publisher.release()


def test_a_consumer_says_again_what_a_server_forgot(connect: Connect) -> None:
    """It came back without its data; the consumer waited for it, and nobody else declares anything."""
    with RedisServer() as server:
        connection = connect(_url(server))
        sink = Sink(connection, kombu.Queue("q", TOPICS, routing_key="a.#", max_length=2), kombu.Queue("f", NEWS))
        with sink.consumer, server.client() as raw:
            server.kill()
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.5)
            server.start()
            signs_of_life = b"redisq:worker"
            assert not [key for key in raw.keys("*") if not key.startswith(signs_of_life)]
            back = time.monotonic()
            while not (_routes(raw) and _routes(raw, "news") and raw.hget("q:config", "rules")):
                assert time.monotonic() - back < 3
                with pytest.raises(TimeoutError):
                    connection.drain_events(timeout=0.1)
            publisher = connect(_url(server))
            for number in range(3):
                _send(publisher, "topics", "a.b", f"topic {number}")
            _send(publisher, "news")
            assert sorted(sink.drain(3)) == ["news", "topic 1", "topic 2"]
            publisher.release()
        connection.release()


def test_a_binding_lives_while_its_queue_is_asked_for_messages(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    kombu.Queue("q", TOPICS, routing_key="a.#", expires=0.5)(connection.default_channel).declare()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        _send(publisher, "topics", "a.b")
        assert get(connection, no_ack=True) is not None, until - time.monotonic()


def test_a_queue_that_was_deleted_by_another_gets_nothing_more(connect: Connect, raw: redis.Redis) -> None:
    connection, publisher = connect(), connect()
    for name in ("q", "other"):
        kombu.Queue(name, TOPICS, routing_key="a.#")(connection.default_channel).declare()
    kombu.Queue("q", kombu.Exchange("direct"), routing_key="k")(connection.default_channel).declare()
    _send(publisher, "topics", "a.b")
    connect().default_channel.queue_delete("q")
    _send(publisher, "topics", "a.b")
    _send(publisher, "direct", "k")
    assert not raw.exists("q:queue:main")
    assert raw.zcard("other:queue:main") == 2
    assert _routes(raw) == [b'bind:["a.#", "other"]', b"type:topic"]


def test_bindings_that_others_made_go_with_a_queue_that_is_known_here(connect: Connect, raw: redis.Redis) -> None:
    one, two, publisher = connect(), connect(), connect()
    for connection, key in ((one, "a.#"), (two, "b.#")):
        kombu.Queue("q", TOPICS, routing_key=key)(connection.default_channel).declare()
    one.default_channel.queue_delete("q")
    _send(publisher, "topics", "b.c")
    assert not raw.exists("q:queue:main")


def test_a_late_answer_does_not_leave_a_reply_queue_behind(connect: Connect, raw: redis.Redis) -> None:
    """Who asked has given up and deleted its queue, after who answers looked where to put it."""
    asker, answerer = connect(), connect()
    replies = kombu.Exchange("replies", durable=False)
    queue = kombu.Queue("r", replies, routing_key="r", expires=0.5, auto_delete=True)
    queue(asker.default_channel).declare()
    channel = answerer.default_channel
    lookup = channel._lookup

    def late(*arguments: Any) -> Any:
        found = list(lookup(*arguments))
        asker.default_channel.queue_delete("r")
        return found

    channel._lookup = late
    _send(answerer, "replies", "r")
    assert raw.exists("r:queue:main")
    wait_until(lambda: not [key for key in raw.keys("r:*") if b":call:" not in key], "it is gone")


def test_an_answer_changes_no_rules(connect: Connect, raw: redis.Redis) -> None:
    asker, answerer = connect(), connect()
    queue = kombu.Queue("r", kombu.Exchange("replies", durable=False), routing_key="r", expires=60, max_length=2)
    queue(asker.default_channel).declare()
    before = raw.hget("r:config", "rules")
    for _ in range(3):
        _send(answerer, "replies", "r")
    assert raw.hget("r:config", "rules") == before
    assert raw.zcard("r:queue:main") == 2


def test_a_message_for_no_queue_at_all_is_an_error(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(connection.channel_errors, match="routing key"):
        publish(connection, 1, "")
    other = connect(deadletter_queue="lost")
    publish(other, 1, "")
    assert get(other, "lost", no_ack=True).payload == 1


def test_what_is_remembered_of_a_reply_queue_goes_soon_too(connect: Connect, raw: redis.Redis) -> None:
    """Each answer has a queue of its own, and remote control may ask many times a second."""
    asker, answerer = connect(), connect()
    queue = kombu.Queue("r", kombu.Exchange("replies", durable=False), routing_key="r", expires=10, auto_delete=True)
    sink = Sink(asker, queue, no_ack=True)
    with sink.consumer:
        _send(answerer, "replies", "r")
        sink.drain(1)
    asker.default_channel.queue_delete("r")
    wait_until(lambda: all(b":call:" in key for key in raw.keys("r:*")), "the ack arrived")
    assert raw.keys("r:*")
    assert all(raw.ttl(key) in (-2, *range(61)) for key in raw.keys("r:*"))


def test_a_queue_that_is_bound_to_fanout_no_more_is_one_like_others(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    channel = connection.default_channel
    kombu.Queue("q", NEWS)(channel).declare()
    TOPICS(channel).declare()
    channel.queue_bind("q", "topics", "a.#")
    channel.queue_unbind("q", "news")
    channel.queue_bind("q", "topics", "b.#")
    sink = Sink(connection)
    with sink.consumer:
        _send(publisher, "news")
        _send(publisher, "topics", "b.c")
        assert sink.drain(1) == ["topics"]
