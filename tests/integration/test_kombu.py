"""The kombu transport, through kombu's own public interface, on a real server."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu
import pytest
import redis
from kombu.asynchronous.hub import Hub

from redisq.broker.commands import Enqueue, claim, enqueue, find
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys
from tests.integration.kombu_client import Connect, Sink, get, publish, waiting
from tests.integration.processes import wait_until
from tests.leaks import check_leaks
from tests.servers import RedisServer
from tests.wire import RefusingProxy

KEYS = QueueKeys("q")


def processing(raw: redis.Redis) -> int:
    return int(raw.zcard("q:queue:processing"))


# Messages


@pytest.mark.parametrize(("body", "serializer"), [({"a": [1, None, "ä"]}, "json"), ({"a": b"\x00\xff"}, "pickle"), ("", "json")])
def test_a_message_comes_as_it_was_sent(connect: Connect, body: Any, serializer: str) -> None:
    connection = connect()
    when = datetime(2026, 1, 2, tzinfo=UTC)
    publish(connection, body, serializer=serializer, headers={"n": 1, "when": when}, correlation_id="c", compression="zlib")
    message = get(connection)
    message.accept = {f"application/{'json' if serializer == 'json' else 'x-python-serialize'}"}
    assert message.payload == body
    assert (message.headers["n"], message.headers["when"], message.properties["correlation_id"]) == (1, when, "c")
    assert message.delivery_info == {"exchange": "", "routing_key": "q", "redelivered": False}
    message.ack()


def test_a_binary_body_is_not_put_into_base64(connect: Connect, raw: redis.Redis) -> None:
    publish(connect(), b"\xfe" * 3000, content_type="application/data", content_encoding="binary")
    (stored,) = raw.hvals("q:messages")
    assert b"\xfe" * 3000 in stored


def test_any_name_is_a_queue_of_its_own(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    names = ["a/b", "a%2Fb", "a:b", "ä", "~", "{a}", "*", "w@host.celery.pidbox", "日" * 60, "日" * 61, "x" * 500, "a b"]
    for name in names:
        publish(connection, name, name)
    # As that of the long one is stored.
    names.append(raw.keys("x*:queue:main")[0].decode().removesuffix(":queue:main"))
    publish(connection, names[-1], names[-1])
    assert {waiting(connection, name) for name in names} == {1}
    assert [get(connection, name, no_ack=True).payload for name in names] == names


def test_a_batch_of_publications_leaves_in_one_write(connect: Connect) -> None:
    connection = connect()
    producer = connection.Producer()
    with producer.batch():
        for number in range(300):
            producer.publish(number, routing_key="q")
    sink = Sink(connection)
    with sink.consumer:
        assert sink.drain(300) == list(range(300))


@pytest.mark.parametrize("busy", range(5))
def test_a_batch_keeps_its_order_when_redis_refuses_a_part_of_it_for_the_moment(
    connect: Connect, redis_server: RedisServer, busy: int
) -> None:
    scripts = itertools.count()
    begun = threading.Event()

    def refuse(words: list[bytes]) -> str | None:
        if not begun.is_set() or words[0].upper() not in (b"EVAL", b"EVALSHA"):
            return None
        if not any(word.endswith(b":queue:main") for word in words):
            return None  # it asks for the exchange's routes
        return "BUSY Redis is busy running a script" if next(scripts) == busy else None

    with closing(RefusingProxy(redis_server.port, refuse)) as proxy:
        connection = connect(f"redisq://127.0.0.1:{proxy.port}")
        exchange = kombu.Exchange("x", type="topic")
        queues = [kombu.Queue(name, exchange, routing_key="#") for name in ("one", "two")]
        for queue in queues:
            queue(connection.default_channel).declare()
        producer = connection.Producer()
        producer.publish(0, routing_key="other")  # Redis knows the script
        begun.set()
        with producer.batch(max_size=5_000):
            for number in range(1_100):
                producer.publish(number, exchange=exchange, routing_key="a")
        connection.release()
    for queue in queues:
        sink = Sink(connect(), queue)
        with sink.consumer:
            assert sink.drain(1_100) == list(range(1_100))


# Acknowledgements


def test_an_acknowledged_message_is_gone_and_acknowledging_again_does_nothing(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, 1)
    message = get(connection)
    for _ in range(2):
        connection.default_channel.basic_ack(message.delivery_tag)
    wait_until(lambda: raw.hlen("q:messages") == 0, "the ack arrived")
    assert raw.hget("q:stats", "stale") is None


def test_a_requeued_message_keeps_its_place_and_its_priority(connect: Connect) -> None:
    connection = connect()
    for number, priority in enumerate((5, 0, 5)):
        publish(connection, number, priority=priority)
    first, second = get(connection), get(connection)
    assert (first.payload, second.payload) == (1, 0)
    second.requeue()
    first.reject(requeue=True)
    again = [get(connection) for _ in range(3)]
    assert [message.payload for message in again] == [1, 0, 2]
    assert [message.delivery_info["redelivered"] for message in again] == [True, True, False]
    assert again[0].delivery_info["delivery_count"] == 1
    for message in again:
        message.ack()


def test_a_message_of_two_queues_is_requeued_to_its_own_alone(connect: Connect) -> None:
    connection = connect()
    exchange = kombu.Exchange("topics", type="topic")
    queues = [kombu.Queue(name, exchange, routing_key="t.*") for name in ("one", "two")]
    connection.Producer(exchange=exchange).publish("hi", routing_key="t.x", declare=queues)
    get(connection, "one").requeue()
    assert [waiting(connection, name) for name in ("one", "two")] == [1, 1]
    get(connection, "one").ack()
    message = get(connection, "two")
    assert (message.payload, message.delivery_info["redelivered"]) == ("hi", False)
    message.ack()


def test_one_channel_may_hold_both_copies(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    exchange = kombu.Exchange("topics", type="topic")
    queues = [kombu.Queue(name, exchange, routing_key="t.*") for name in ("one", "two")]
    connection.Producer(exchange=exchange).publish("hi", routing_key="t.x", declare=queues)
    copies = [get(connection, name) for name in ("one", "two")]
    assert copies[0].delivery_tag != copies[1].delivery_tag
    copies[0].ack()
    wait_until(lambda: raw.hlen("one:messages") == 0, "the ack arrived")
    assert raw.hlen("two:messages") == 1
    copies[1].ack()


def test_what_a_closed_channel_held_goes_back_at_once(connect: Connect) -> None:
    connection = connect()
    for number in range(3):
        publish(connection, number)
    sink = Sink(connection, ack=False, prefetch_count=3)
    sink.consumer.consume()
    sink.drain(1)
    connection.release()
    other = connect()
    assert waiting(other) == 3
    again = Sink(other)
    with again.consumer:
        assert again.drain(3) == [0, 1, 2]
    # The first was given to somebody, the others never were.
    assert [message.delivery_info["redelivered"] for message in again.messages] == [True, False, False]


def test_an_ack_after_its_channel_was_closed_takes_the_restored_copy_away(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, 1)
    message = get(connection)
    connection.release()
    assert raw.zcard("q:queue:main") == 1
    message.ack()
    assert raw.zcard("q:queue:main") == 0
    assert raw.hget("q:stats", "late_acks") == b"1"


def test_a_closed_channel_does_nothing_more_but_acknowledge(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, 1)
    message = get(connection)
    channel = connection.default_channel
    connection.release()
    exchange = kombu.Exchange("x", type="topic")
    steps: list[Callable[[], Any]] = [
        lambda: kombu.Producer(channel).publish(2, routing_key="q"),
        lambda: kombu.Producer(channel, exchange=exchange).publish(2, routing_key="a"),
        lambda: channel.basic_get("q"),
        lambda: channel.basic_consume("q", False, print, "tag"),
        lambda: channel.queue_declare("q", passive=True),
        lambda: channel.queue_delete("q"),
    ]
    for step in steps:
        with pytest.raises(connection.connection_errors):
            step()
    message.ack()
    assert raw.hlen("q:messages") == 0
    assert not [each for each in raw.client_list() if each["name"] == "redisq:kombu"]


# Order, time


@pytest.mark.parametrize(("higher_first", "order"), [(False, [0, 1, 9, 255]), (True, [255, 9, 1, 0])])
def test_priorities_are_strict_in_the_direction_that_was_chosen(connect: Connect, higher_first: bool, order: list[int]) -> None:
    connection = connect(higher_priority_first=higher_first)
    for priority in (9, 0, 255, 1):
        publish(connection, priority, priority=priority)
    assert [get(connection, no_ack=True).payload for _ in order] == order


def test_a_delayed_message_is_handed_out_when_it_is_due(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    late: list[float] = []
    sink = Sink(connection)
    with sink.consumer:
        for number in range(20):
            eta = datetime.now(UTC) + timedelta(seconds=0.3 + number * 0.05)
            publish(connection, eta.timestamp(), headers={"eta": eta.isoformat()})
        assert raw.zcard("q:queue:delayed") == 20
        for _ in range(20):
            sink.drain(1)
            late.append(time.time() - sink.bodies[-1])
    assert min(late) > -0.05
    assert sorted(late)[10] < 0.05
    assert len(sink.messages) == 20


def test_a_delayed_message_waits_in_redis_not_in_the_consumer(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    sink = Sink(connection)
    with sink.consumer:
        publish(connection, "later", headers={"eta": (datetime.now(UTC) + timedelta(hours=1)).isoformat()})
        publish(connection, "now")
        assert sink.drain(1) == ["now"]
    wait_until(lambda: processing(raw) == 0, "the ack arrived")
    assert raw.zcard("q:queue:delayed") == 1
    assert waiting(connection) == 0


def test_an_expired_message_does_not_come(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, "old", expiration=0.001)
    published = time.monotonic()
    publish(connection, "new")
    wait_until(lambda: time.monotonic() > published + 0.002, "it expired")
    assert get(connection, no_ack=True).payload == "new"
    assert raw.hget("q:stats", "expired") == b"1"


def test_what_expired_can_be_kept_and_what_is_too_much_goes(connect: Connect, raw: redis.Redis) -> None:
    connection = connect(dead_letter_expired=True)
    queue = kombu.Queue("q", message_ttl=0.05, max_length=2)
    for number in range(4):
        connection.Producer().publish(number, routing_key="q", declare=[queue])
    assert waiting(connection) == 2
    published = time.monotonic()
    wait_until(lambda: time.monotonic() > published + 0.06, "they expired")
    assert get(connection) is None
    assert raw.zcard("q:queue:dlq") == 2
    assert b"reason=expired" in raw.hvals("q:meta")[0]


def test_a_queue_that_nobody_uses_goes_with_all_in_it(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    queue = kombu.Queue("q", kombu.Exchange("x"), routing_key="k", expires=0.5)
    connection.Producer(exchange=queue.exchange).publish(1, routing_key="k", declare=[queue])
    assert raw.keys("q:*")
    wait_until(lambda: not [key for key in raw.keys("q:*") if b":call:" not in key], "it is gone")
    # Nor does a publisher that knows nothing of it bring it back.
    other = connect()
    other.Producer(exchange=kombu.Exchange("x")).publish(2, routing_key="k")
    assert raw.zcard("q:queue:main") == 0


def test_a_passive_declare_counts_and_an_unknown_queue_is_an_error(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(connection.channel_errors, match="NOT_FOUND"):
        waiting(connection, "nowhere")
    for number in range(3):
        publish(connection, number)
    assert waiting(connect()) == 3
    assert connection.default_channel.queue_purge("q") == 3
    assert waiting(connection) == 0


# Leases


def test_leases_are_renewed_while_nobody_turns_a_loop_and_after_the_last_consumer_went(connect: Connect, raw: redis.Redis) -> None:
    connection = connect(lease=3)
    publish(connection, 1)
    sink = Sink(connection, ack=False)
    with sink.consumer:
        sink.drain(1)
    first = raw.zscore("q:queue:processing", raw.hkeys("q:messages")[0])
    assert first is not None
    wait_until(lambda: (raw.zscore("q:queue:processing", raw.hkeys("q:messages")[0]) or 0) > first + 2_000_000, "two renewals")
    assert get(connect()) is None
    sink.messages[0].ack()


HOLDER = """
import sys, kombu, redisq.kombu
connection = kombu.Connection(sys.argv[1], transport_options={"lease": 3})
connection.Consumer([kombu.Queue("q")], callbacks=[lambda body, message: print("got", flush=True)]).consume()
while True:
    connection.drain_events()
"""


def test_what_a_killed_consumer_held_comes_back_within_its_lease(connect: Connect, redis_url: str) -> None:
    connection = connect(lease=3)
    publish(connection, 1)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_url.replace("redis://", "redisq://")], stdout=subprocess.PIPE, text=True
    )
    with holder, closing(holder.stdout):  # type: ignore[type-var]
        assert holder.stdout.readline() == "got\n"  # type: ignore[union-attr]
        holder.kill()
        killed = time.monotonic()
        sink = Sink(connection)
        with sink.consumer:
            sink.drain(1)
        assert time.monotonic() - killed < 3 + 2
    assert sink.messages[0].delivery_info["redelivered"]


# Dead letters


def test_a_rejected_message_is_a_dead_letter_with_its_headers(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, "bad", headers={"task": "answer", "h": 1})
    get(connection).reject()
    assert get(connection) is None
    (id_,) = raw.zrange("q:queue:dlq", 0, -1)
    listed = redisq_command(redis_url, "dead", "list")
    assert id_.decode() in listed
    assert "rejected" in listed
    assert "answer" in listed
    redisq_command(redis_url, "dead", "replay", id_.decode())
    message = get(connection)
    assert (message.payload, message.headers["h"]) == ("bad", 1)
    message.ack()


def redisq_command(url: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "redisq", *words, "--url", url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_that_is_requeued_too_often_is_a_dead_letter(connect: Connect, raw: redis.Redis) -> None:
    connection = connect(delivery_limit=3)
    publish(connection, 1)
    for _ in range(3):
        get(connection).requeue()
    assert get(connection) is None
    assert b"reason=delivery_limit" in raw.hvals("q:meta")[0]


def test_requeues_of_a_short_time_make_no_dead_letter(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, 1)
    for _ in range(50):
        get(connection).requeue()
    again = get(connection)
    assert again.delivery_info["delivery_count"] == 50
    again.requeue()
    # A day after its first requeue it may be one.
    (meta,) = raw.hvals("q:meta")
    since = re.search(rb"since=(\d+)", meta)
    assert since
    raw.hset("q:meta", raw.hkeys("q:meta")[0], meta.replace(since[1], b"%d" % (int(since[1]) - 86_400_000_000)))
    get(connection).requeue()
    assert raw.zcard("q:queue:dlq") == 1


def test_each_dead_letter_is_said_with_its_queue_task_id_and_reason(
    connect: Connect, redis_url: str, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(delivery_limit=1, dead_letter_expired=True, lease=3)
    headers = {"task": "app.add", "id": "d1f0-celery"}

    def said(reason: str) -> bool:
        # The channel's acknowledgements may be carried off by a thread.
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        return any(line.startswith(f"Task app.add[d1f0-celery] of queue a b is a dead letter now ({reason})") for line in lines)

    publish(connection, 1, "a b", headers=headers)
    get(connection, "a b").reject()
    wait_until(lambda: said("rejected"), "it was rejected")
    publish(connection, 1, "a b", headers=headers)
    get(connection, "a b").requeue()
    wait_until(lambda: said("delivery_limit"), "it was requeued too often")
    connection.default_channel.queue_declare("a b")
    publish(connection, 1, "a b", headers=headers, expiration=0.001)
    sent = time.monotonic()
    wait_until(lambda: time.monotonic() > sent + 0.01, "it expired")
    assert get(connection, "a b") is None
    assert said("expired")
    publish(connection, 1, "a b", headers=headers)
    command = claim(QueueKeys("a%20b"), worker="dead", limit=1, lease=1, max_crashes=1)
    # Another one took it, and died.
    with closing(Server(redis_url).connector("test")) as other:
        other.execute(command)
    wait_until(lambda: get(connection, "a b") is None and said("crashed"), "its worker died")
    publish(connection, 1, "a b", headers=headers)
    raw.delete("a%20b:messages")
    assert get(connection, "a b") is None
    (line,) = [record.getMessage() for record in caplog.records if "body_missing" in record.getMessage()]
    assert line.startswith("Task ?[")


def test_a_message_that_nobody_can_read_is_a_dead_letter(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    server = Server(redis_url).connector("test")
    server.execute(enqueue(KEYS, [Enqueue("x", b"\xc1"), Enqueue("y", b"\x91\x01")]))
    connection = connect()
    publish(connection, 1)
    assert get(connection, no_ack=True).payload == 1
    wait_until(lambda: raw.zcard("q:queue:dlq") == 2, "both")
    found = server.execute(find(KEYS, "x"))
    assert found is not None
    assert found.meta.reason == "undecodable"
    server.close()


# Fanout and bindings


def test_a_fanout_message_reaches_all_who_were_bound_before_it(connect: Connect, raw: redis.Redis) -> None:
    connection, publisher = connect(), connect()
    exchange = kombu.Exchange("news", type="fanout")
    publisher.Producer(exchange=exchange).publish("before")
    sinks = [Sink(connection, kombu.Queue(name, exchange)) for name in ("one", "two")]
    for sink in sinks:
        sink.consumer.declare()
    publisher.Producer(exchange=exchange).publish("after")
    with sinks[0].consumer, sinks[1].consumer:
        while not all(sink.messages for sink in sinks):
            connection.drain_events(timeout=5)
    assert [sink.bodies for sink in sinks] == [["after"], ["after"]]
    assert not [key for key in raw.keys("*") if not key.startswith(b"redisq:exchange:news:")]
    assert raw.ttl("redisq:exchange:news:stream") > 0


def test_a_publisher_that_declared_nothing_knows_what_an_exchange_is(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    news, topics = kombu.Exchange("news", type="fanout"), kombu.Exchange("topics", type="topic")
    sink = Sink(connection, kombu.Queue("one", news), kombu.Queue("two", topics, routing_key="a.#"))
    with sink.consumer:
        channel = publisher.channel()
        for exchange, key in (("news", ""), ("topics", "a.b.c")):
            channel.basic_publish(channel.prepare_message(f'"{exchange}"', content_type="application/json"), exchange, key)
        assert sorted(sink.drain(2)) == ["news", "topics"]


def test_nothing_of_the_stock_transport_is_touched(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    queue = kombu.Queue("celery", kombu.Exchange("celery"), routing_key="celery")
    with kombu.Connection(redis_url) as stock:
        stock.Producer(exchange=queue.exchange).publish("stock", routing_key="celery", declare=[queue])
        before = {key: raw.dump(key) for key in raw.keys("*")}
        assert before
        connection = connect()
        connection.Producer(exchange=queue.exchange).publish("ours", routing_key="celery", declare=[queue])
        sink = Sink(connection, queue)
        with sink.consumer:
            assert sink.drain(1) == ["ours"]
        connection.default_channel.queue_delete("celery")
        assert {key: raw.dump(key) for key in before} == before
        assert stock.default_channel.basic_get("celery", no_ack=True).payload == "stock"
    raw.flushdb()


# Connections


def test_an_idle_consumer_closes_at_once(connect: Connect) -> None:
    connection = connect()
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", kombu.Exchange("news", type="fanout")))
    sink.consumer.consume()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.2)
    started = time.monotonic()
    connection.release()
    assert time.monotonic() - started < 1


def test_prefetch_is_honoured(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    for number in range(10):
        publish(connection, number)
    sink = Sink(connection, ack=False, prefetch_count=3)
    with sink.consumer:
        sink.drain(3)
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.2)
        assert processing(raw) == 3
        sink.messages[0].ack()
        assert sink.drain(1)[-1] == 3
        for message in sink.messages[1:]:
            message.ack()


def test_an_event_loop_hands_out_what_comes(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    hub = Hub()
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", kombu.Exchange("news", type="fanout")), prefetch_count=2)
    with sink.consumer:
        connection.register_with_event_loop(hub)
        turning = threading.Event()

        def send() -> None:
            turning.wait(5)
            for number in range(5):
                publish(publisher, number)
            publisher.Producer(exchange=kombu.Exchange("news", type="fanout")).publish("news")

        thread = threading.Thread(target=send)
        thread.start()
        deadline = time.monotonic() + 10
        while len(sink.messages) < 6 and time.monotonic() < deadline:
            hub.run_once()
            turning.set()
        thread.join()
    connection.release()
    assert sorted(map(str, sink.bodies)) == ["0", "1", "2", "3", "4", "news"]
    assert not hub.readers
    hub.close()


def test_an_event_loop_goes_on_at_once_when_acknowledgements_come_in_its_next_turn(connect: Connect) -> None:
    """As Celery's do: with all of the prefetch count out, nothing else would turn the loop."""
    connection, publisher = connect(), connect()
    for number in range(40):
        publish(publisher, number)
    hub = Hub()
    came: list[int] = []

    def take(body: int, message: kombu.Message) -> None:
        came.append(body)
        hub.call_soon(message.ack)

    started = time.monotonic()
    with connection.Consumer([kombu.Queue("q")], callbacks=[take], prefetch_count=4):
        connection.register_with_event_loop(hub)
        while len(came) < 40:
            hub.run_once()
    assert time.monotonic() - started < 3
    connection.release()
    hub.close()


def test_a_prefix_keeps_two_programs_apart(connect: Connect, raw: redis.Redis) -> None:
    publish(connect(global_keyprefix="app:"), 1)
    assert get(connect()) is None
    assert raw.zcard("app:q:queue:main") == 1
    check_leaks(raw)


# Many queues


def _scripts(raw: redis.Redis) -> int:
    found = raw.info("commandstats")
    return sum(int(found.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


def _idle(sink: Sink, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        sink.connection.drain_events(timeout=seconds)


def test_200_idle_queues_cost_one_script_a_second(connect: Connect, raw: redis.Redis) -> None:
    queues = [kombu.Queue(f"idle-{number}") for number in range(200)]
    with Sink(connect(), *queues).consumer as consumer:
        sink = Sink(consumer.connection, ack=False)
        _idle(sink, 1.5)
        before = _scripts(raw)
        _idle(sink, 5)
        assert _scripts(raw) - before <= 6


def test_lease_that_expires_in_one_of_200_idle_queues_is_found_in_time(connect: Connect, raw: redis.Redis) -> None:
    """It leaves no hint: whoever held it is dead."""
    queues = [kombu.Queue(f"idle-{number}") for number in range(200)]
    sink = Sink(connect(lease=3), *queues)
    with sink.consumer:
        _idle(sink, 1.5)
        keys = QueueKeys("idle-150")
        connector = Server(f"redis://127.0.0.1:{raw.connection_pool.connection_kwargs['port']}").connector("dead")
        publish(connect(), "mine", "other")
        (stored,) = raw.hvals("other:messages")
        connector.execute_many(
            [enqueue(keys, [Enqueue("m", stored)]), claim(keys, worker="dead", limit=1, lease=3_000_000, max_crashes=9)]
        )
        connector.close()
        began = time.monotonic()
        assert raw.zcard(keys.named("processing")) == 1
        assert sink.drain(1) == ["mine"]
        assert 2 < time.monotonic() - began < 3 + 2


def test_queue_that_expires_unused_lives_while_somebody_consumes_who_did_not_declare_it(connect: Connect, raw: redis.Redis) -> None:
    declaring = connect()
    queues = [kombu.Queue(f"idle-{number}") for number in range(3)]
    short = kombu.Queue("short", expires=3)
    short(declaring.default_channel).declare()
    publish(declaring, "first", "short")
    sink = Sink(connect(), *queues, short, auto_declare=False)
    with sink.consumer:
        assert sink.drain(1) == ["first"]
        declaring.close()
        _idle(sink, 6)
        assert 0 < raw.pttl("short:config") <= 3000


@pytest.mark.parametrize("prefetch", [1, 4, 0])
@pytest.mark.parametrize("first", [0, 9], ids=["lowest number first", "highest number first"])
def test_priorities_hold_across_queues_where_that_is_wanted(connect: Connect, prefetch: int, first: int) -> None:
    connection = connect(priority_across_queues=True, higher_priority_first=first == 9, queue_order_strategy="sorted")
    for queue in ("a", "b", "c"):
        for priority in (5, 9, 0):
            for number in range(3):
                publish(connection, [priority, queue, number], queue, priority=priority)
    sink = Sink(connection, *(kombu.Queue(queue) for queue in ("c", "b", "a")), prefetch_count=prefetch)
    with sink.consumer:
        assert sink.drain(27) == [
            [priority, queue, number]
            for priority in sorted((0, 5, 9), reverse=first == 9)
            for queue in "abc"
            for number in range(3)
        ]


def test_urgent_message_of_another_queue_goes_before_what_waited_already(connect: Connect, raw: redis.Redis) -> None:
    connection = connect(priority_across_queues=True)
    for number in range(5):
        publish(connection, f"slow {number}", "a", priority=9)
    sink = Sink(connection, kombu.Queue("a"), kombu.Queue("b"), prefetch_count=1)
    with sink.consumer:
        assert sink.drain(1) == ["slow 0"]
        publish(connection, "urgent", "b", priority=1)
        assert sink.drain(2)[1:] == ["urgent", "slow 1"]
        # It becomes due while others wait: it has its priority, too.
        publish(connection, "later", "other", priority=0)
        (stored,) = raw.hvals("other:messages")
        connector = Server(f"redis://127.0.0.1:{raw.connection_pool.connection_kwargs['port']}").connector("test")
        connector.execute(enqueue(QueueKeys("b"), [Enqueue("m", stored, due="+1")]))
        connector.close()
        assert sink.drain(2)[3:] == ["later", "slow 2"]


def test_limit_or_pause_of_the_most_urgent_queue_stops_no_other(connect: Connect, raw: redis.Redis) -> None:
    connection = connect(priority_across_queues=True)
    publish(connection, "urgent", "a", priority=0)
    publish(connection, "other", "b", priority=9)
    raw.hset("a:config", "paused", "1")
    sink = Sink(connection, kombu.Queue("a"), kombu.Queue("b"))
    with sink.consumer:
        assert sink.drain(1) == ["other"]
        raw.hdel("a:config", "paused")
        assert sink.drain(1) == ["other", "urgent"]


def test_an_id_that_is_not_utf8_is_a_dead_letter_and_its_neighbours_arrive(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, "first")
    raw.hset("q:messages", b"caf\xe9", raw.hvals("q:messages")[0])
    raw.zadd("q:queue:main", {b"caf\xe9": 0})
    message = get(connection)
    assert message.payload == "first"
    message.ack()
    wait_until(lambda: raw.zrange("q:queue:dlq", 0, -1) == [b"caf\xe9"], "it is a dead letter")
