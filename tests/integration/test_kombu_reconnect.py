"""The kombu transport when connections break, and when Redis is away."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext

import kombu
import pytest
import redis
from celery import Celery
from kombu.asynchronous.hub import Hub

from redisq.errors import BrokerError, BrokerUnavailable
from tests.integration.kombu_client import Connect, Sink, get, publish
from tests.integration.processes import wait_until
from tests.servers import RedisServer
from tests.wire import CuttingProxy

NEWS = kombu.Exchange("news", type="fanout")


def test_consumers_go_on_when_their_connections_are_killed(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    news = kombu.Exchange("news", type="fanout")
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", news))
    publisher = connect()
    with sink.consumer:
        for number in range(5):
            publish(publisher, number)
            publisher.Producer(exchange=news).publish(f"news {number}")
            sink.drain(2)
            for client in raw.client_list():
                if "redisq" in client["name"]:
                    raw.client_kill_filter(_id=client["id"])
    assert len(sink.messages) == 10


def test_a_channel_can_be_opened_after_idle_connections_were_cut(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    assert get(connection) is None
    for _ in range(3):
        for client in raw.client_list():
            if "redisq" in client["name"]:
                raw.client_kill_filter(_id=client["id"])
        connection.channel().close()


def test_a_consumer_reads_an_answer_that_its_event_loop_does_not_report(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", NEWS))
    hub = Hub()
    with sink.consumer:
        connection.register_with_event_loop(hub)

        def comes(body: str) -> None:
            deadline = time.monotonic() + 10
            while body not in sink.bodies:
                assert time.monotonic() < deadline, f"{body} did not come"
                hub.run_once()

        publisher.Producer(exchange=NEWS).publish("first news")
        publish(publisher, "first task")
        comes("first news")
        comes("first task")
        for fileno in list(hub.readers):
            hub.remove(fileno)
        publisher.Producer(exchange=NEWS).publish("second news")
        publish(publisher, "second task")
        comes("second news")
        comes("second task")
        publisher.Producer(exchange=NEWS).publish("third news")
        started = time.monotonic()
        comes("third news")
        assert time.monotonic() - started < 1, "the loop watches the socket again"
    connection.release()
    hub.close()


def test_an_event_loop_watches_no_socket_that_was_closed(connect: Connect, raw: redis.Redis) -> None:
    connection, publisher = connect(), connect()
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", NEWS))
    hub = Hub()
    with sink.consumer:
        connection.register_with_event_loop(hub)
        watched = len(hub.readers)
        for number in range(6):
            publish(publisher, number)
            publisher.Producer(exchange=NEWS).publish(f"news {number}")
            while len(sink.messages) < 2 * number + 2:
                hub.run_once()
            for client in raw.client_list():
                if client["name"] in ("redisq:kombu-wake", "redisq:kombu-fanout"):
                    raw.client_kill_filter(_id=client["id"])
        assert len(hub.readers) <= watched + 2
    connection.release()
    assert not hub.readers
    hub.close()


def test_a_consumer_goes_on_when_the_server_is_back(connect: Connect) -> None:
    with RedisServer(append_only=True) as server:
        connection = connect(server.url().replace("redis://", "redisq://"))
        publish(connection, 1)
        sink = Sink(connection)
        with sink.consumer:
            sink.drain(1)
            server.kill()
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=1)
            server.start()
            back = time.monotonic()
            publish(connection, 2)
            assert sink.drain(1) == [1, 2]
            assert time.monotonic() - back < 3
        server.kill()
        started = time.monotonic()
        connection.release()
        assert time.monotonic() - started < 5


def test_an_outage_has_one_warning_whatever_fails_in_it(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(append_only=True) as server:
        connection = connect(server.url().replace("redis://", "redisq://"), lease=3)
        publish(connection, 1)
        publish(connection, 2)
        sink = Sink(connection, kombu.Queue("q"), kombu.Queue("other"), ack=False)
        with sink.consumer:
            sink.drain(2)
            server.kill()
            sink.messages[0].ack()
            # Claims, renewals and the acknowledgement all fail, each several times.
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=4)
            server.start()
            publish(connection, 3)
            sink.drain(1)
            wait_until(lambda: server.client().zcard("q:queue:processing") == 2, "the acknowledgement arrived")
            told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert [text.split(",")[0] for text in told] == ["Redis is away", "Redis is back"], told


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_where_there_is_another_url_nobody_waits_long_for_a_dead_server(connect: Connect, how: str) -> None:
    with RedisServer() as first, RedisServer() as second:
        url = ";".join(each.url().replace("redis://", "redisq://") for each in (first, second))
        publisher, consumer, late = connect(url), connect(url), connect(url)
        publish(publisher, 1, declare=[kombu.Queue("q")], retry=True)
        sink = Sink(consumer, ack=False)
        sink.consumer.consume()
        sink.drain(1)
        with first.frozen() if how == "frozen" else nullcontext():
            if how == "killed":
                first.kill()

            def seconds(step: Callable[[], object]) -> float:
                began = time.monotonic()
                step()
                return time.monotonic() - began

            policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0}
            assert seconds(lambda: publish(publisher, 2, retry=True, retry_policy=policy)) < 3
            assert seconds(consumer.close) < 3
            assert seconds(lambda: late.ensure_connection(max_retries=3, interval_start=0, interval_step=0)) < 3
            assert get(late, no_ack=True).payload == 2


def test_an_error_names_what_the_program_did(connect: Connect) -> None:
    with RedisServer() as server:
        connection = connect(server.url().replace("redis://", "redisq://"), socket_timeout=0.3)
        sender = connection.Producer()
        headers = {"task": "app.add", "id": "1"}
        queue = kombu.Queue("mail", kombu.Exchange("mail"), "mail")
        steps: dict[str, Callable[[], object]] = {
            "send task app.add to queue mail (declare exchange mail)": lambda: sender.publish(
                1, routing_key="mail", declare=[queue], headers=headers
            ),
            "send task app.add to queue mail": lambda: sender.publish(1, routing_key="mail", headers=headers),
            "send a message to exchange mail, routing key 'x'": lambda: sender.publish(1, exchange="mail", routing_key="x"),
            "send a message to exchange news": lambda: sender.publish(1, exchange="news"),
            "declare queue other": lambda: connection.default_channel.queue_declare("other", passive=True),
            "bind queue other to exchange mail": lambda: connection.default_channel.queue_bind("other", "mail", "k"),
            "get a message of queue mail": lambda: get(connection, "mail"),
        }
        assert get(connection) is None
        server.kill()
        for what, step in steps.items():
            with pytest.raises(BrokerUnavailable, match=f"could not {re.escape(what)}.*: .*; is Redis running") as failed:
                step()
            assert "redisq:exchange" not in str(failed.value)


@pytest.mark.parametrize("refused", ["by the user's rights", "by a key's type"])
def test_error_names_what_the_program_did_also_after_retries(connect: Connect, refused: str) -> None:
    """kombu declares again on another channel, and Celery's `delay` retries by default."""
    with RedisServer() as server, server.client() as raw:
        connection = connect(server.url().replace("redis://", "redisq://"))
        queue = kombu.Queue("mail", kombu.Exchange("mail"), "mail")
        if refused == "by a key's type":
            raw.set("mail:config", "another program's")
        else:
            raw.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0}
        with pytest.raises(
            kombu.exceptions.OperationalError, match=r"could not send task app.add to queue mail \(declare \w+ mail\): "
        ):
            connection.Producer().publish(
                1, routing_key="mail", declare=[queue], headers={"task": "app.add", "id": "1"}, retry=True, retry_policy=policy
            )
        raw.set("other:config", "another program's")
        with pytest.raises(BrokerError, match=r"could not (declare|get a message of) queue other: "):
            get(connection, "other")


@pytest.mark.parametrize("retry", [True, False], ids=["retried", "at once"])
@pytest.mark.parametrize("connected", [True, False], ids=["went away", "was never there"])
def test_error_names_task_and_queue_when_no_connection_can_be_had(connect: Connect, retry: bool, connected: bool) -> None:
    """kombu connects before it hands the message over, and tells nobody what for."""
    with RedisServer() as server:
        app = Celery(broker=server.url().replace("redis://", "redisq://"), broker_transport_options={"socket_timeout": 0.3})
        if connected:
            app.send_task("app.add")
        server.kill()
        policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        for queue in ("celery", "mail"):
            with pytest.raises(
                kombu.exceptions.OperationalError, match=rf"could not send task app\.add to queue {queue}\b.*: Error 111"
            ):
                app.send_task("app.add", queue=queue, retry=retry, retry_policy=policy)
        app.close()


def test_error_names_the_remote_control_command_and_no_reply_queue(connect: Connect) -> None:
    with RedisServer() as server:
        app = Celery(broker=server.url().replace("redis://", "redisq://"), broker_transport_options={"socket_timeout": 0.3})
        app.control.ping(timeout=0.01)
        server.kill()
        with pytest.raises(BrokerUnavailable, match=r"could not send remote control command ping \("):
            app.control.ping(timeout=0.01)
        app.close()


def test_error_of_a_refused_login_names_task_and_queue(connect: Connect, redis_url: str) -> None:
    app = Celery(broker=redis_url.replace("redis://", "redisq://nobody:wrong@"))
    with pytest.raises(kombu.exceptions.OperationalError, match=r"could not send task app\.add to queue mail: .*password"):
        app.send_task("app.add", queue="mail", retry=False)
    app.close()


@pytest.mark.chaos
@pytest.mark.parametrize("with_loop", [False, True], ids=["drain", "loop"])
def test_a_consumer_goes_on_when_its_sockets_are_half_open(
    connect: Connect, redis_server: RedisServer, with_loop: bool, raw: redis.Redis
) -> None:
    proxy = CuttingProxy(redis_server.port)
    with closing(proxy):
        connection, publisher = connect(f"redisq://127.0.0.1:{proxy.port}"), connect()
        sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", NEWS))
        hub = Hub()
        with sink.consumer:
            if with_loop:
                connection.register_with_event_loop(hub)

            def turn() -> None:
                if with_loop:
                    hub.run_once()
                else:
                    try:
                        connection.drain_events(timeout=0.1)
                    except TimeoutError:
                        return

            def comes(body: object) -> None:
                deadline = time.monotonic() + 10
                while body not in sink.bodies:
                    assert time.monotonic() < deadline, f"{body} did not come"
                    turn()

            publish(publisher, "one")
            publisher.Producer(exchange=NEWS).publish("news one")
            comes("one")
            comes("news one")
            # Once while it waits, and once right after it took something.
            for number in range(2):
                proxy.silence()
                started = time.monotonic()
                publish(publisher, number)
                publisher.Producer(exchange=NEWS).publish(f"news {number}")
                comes(number)
                comes(f"news {number}")
                assert time.monotonic() - started < 3
            proxy.silence()
            started = time.monotonic()
        connection.release()
        assert time.monotonic() - started < 6
        hub.close()


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["consume", "get"])
def test_what_was_claimed_while_the_answer_got_lost_comes_at_once(connect: Connect, how: str) -> None:
    """The server carries out a claim that the consumer gave up; that would have to wait for the lease to end."""
    with RedisServer() as server:
        url = server.url().replace("redis://", "redisq://")
        for number in range(3):
            publish(connect(url), number)
        connection = connect(url)
        sink = Sink(connection, ack=False)
        assert get(connection, "empty") is None  # it is connected
        with ThreadPoolExecutor() as pool:
            with server.frozen():
                if how == "consume":
                    sink.consumer.consume()
                    reading = pool.submit(sink.drain, 3, 8)
                else:
                    reading = pool.submit(lambda: [get(connection).payload for _ in range(3)])
                time.sleep(2.3)  # the first try is given up, the second is on its way
            thawed = time.monotonic()
            assert reading.result() == [0, 1, 2]
            assert time.monotonic() - thawed < 3
        assert not [message for message in sink.messages if message.delivery_info["redelivered"]]
        with server.client() as raw:
            assert raw.zcard("q:queue:processing") == 3
        connection.release()


ACKS_AND_ENDS = """
import sys, kombu, redisq.kombu
connection = kombu.Connection(sys.argv[1])
message = connection.default_channel.basic_get("q")
message.ack()
"""


def test_a_program_that_ends_right_after_an_ack_has_acknowledged(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    connection = connect()
    for number in range(3):
        publish(connection, number)
        subprocess.run([sys.executable, "-c", ACKS_AND_ENDS, redis_url.replace("redis://", "redisq://")], check=True)
        assert raw.hlen("q:messages") == 0


FORKS = """
import os, sys, kombu, redisq.kombu
connection = kombu.Connection(sys.argv[1])
got = []
consumer = connection.Consumer([kombu.Queue("q")], callbacks=[lambda body, message: got.append(message)], prefetch_count=1)
consumer.consume()
connection.drain_events(timeout=5)
child = os.fork()
if child == 0:
    got[0].channel.close()
    connection.close()
    os._exit(0)
os.waitpid(child, 0)
print("forked", flush=True)
sys.stdin.readline()
got[0].ack()
connection.release()
"""


def test_a_forked_child_ends_nothing_of_its_parent(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    connection = connect()
    publish(connection, 1)
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKS, redis_url.replace("redis://", "redisq://")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        assert raw.zcard("q:queue:processing") == 1
        assert raw.zcard("q:queue:main") == 0
        parent.communicate("\n")
    assert parent.returncode == 0
    assert raw.hlen("q:messages") == 0


def test_what_an_idle_consumer_uses_does_not_expire(connect: Connect, raw: redis.Redis) -> None:
    connection, publisher = connect(), connect()
    exchange = kombu.Exchange("x", type="topic", durable=False)
    sink = Sink(connection, kombu.Queue("q", exchange, routing_key="a.#", expires=1.0, auto_delete=True))
    with sink.consumer:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=0.5)
        publisher.Producer(exchange=kombu.Exchange("x", type="topic", durable=False)).publish("still", routing_key="a.b")
        assert sink.drain(1, seconds=2) == ["still"]
    connection.release()
    wait_until(lambda: not [key for key in raw.keys("q:*") if b":call:" not in key], "the queue is gone")
    now = f"({time.time() * 1_000_000:.0f}"
    assert raw.zrangebyscore("redisq:exchange:x:routes", now, "+inf") == [b"type:topic"]


def test_fanout_is_not_kept_waiting_by_a_backlog(connect: Connect) -> None:
    connection, publisher = connect(), connect()
    sink = Sink(connection, kombu.Queue("q"), kombu.Queue("f", NEWS))
    with sink.consumer:
        for number in range(90):
            publish(publisher, number)
        sink.drain(1)
        publisher.Producer(exchange=NEWS).publish("first")
        time.sleep(0.1)  # until it has arrived
        assert "first" in sink.drain(2)
        publisher.Producer(exchange=NEWS).publish("second")
        time.sleep(0.1)
        assert "second" in sink.drain(2)
        assert len(sink.messages) == 5


def test_an_auto_delete_queue_stays_while_another_consumes_it(connect: Connect) -> None:
    first, second, publisher = connect(), connect(), connect()
    queue = kombu.Queue("q", kombu.Exchange("x", type="topic"), routing_key="a.#", auto_delete=True)
    sinks = [Sink(connection, queue) for connection in (first, second)]
    for sink in sinks:
        sink.consumer.consume()
    first.release()
    publisher.Producer(exchange=queue.exchange).publish("still here", routing_key="a.b")
    assert sinks[1].drain(1) == ["still here"]


def test_an_auto_delete_queue_goes_only_after_it_was_consumed(connect: Connect, raw: redis.Redis) -> None:
    connection = connect()
    queue = kombu.Queue("q", kombu.Exchange("x"), routing_key="k", auto_delete=True)
    connection.Producer(exchange=queue.exchange).publish("stays", routing_key="k", declare=[queue])
    assert raw.ttl("q:messages") == -1
    sink = Sink(connection, queue, ack=False)
    with sink.consumer:
        assert sink.drain(1) == ["stays"]
        assert 0 < raw.ttl("q:messages") <= 300


MANY_FILES = """
import resource, sys, kombu, redisq.kombu
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 4096 else 4096, hard))
files = [open("/dev/null") for _ in range(1100)]
connection = kombu.Connection(sys.argv[1])
got = []
with connection.Consumer([kombu.Queue("q")], callbacks=[lambda body, message: got.append(message.ack())]):
    while not got:
        connection.drain_events(timeout=5)
connection.release()
"""


def test_a_program_with_a_thousand_open_files_consumes(connect: Connect, redis_url: str, raw: redis.Redis) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MANY_FILES, redis_url.replace("redis://", "redisq://")]
    ) as program:
        # It waits when the message comes.
        wait_until(lambda: any(each["name"] == "redisq:kombu-wake" for each in raw.client_list()), "it waits")
        publish(connect(), 1)
    assert program.returncode == 0
    assert raw.hlen("q:messages") == 0
