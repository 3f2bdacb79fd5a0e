"""How a program comes to the kombu transport: its names, URLs and options."""

from __future__ import annotations

import ssl
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import celery
import kombu
import pytest
import redis
import trustme
from celery.loaders.app import AppLoader
from kombu.transport import redis as stock

import redisq.kombu
from redisq.errors import ConfigError
from tests.integration.kombu_client import Connect, get, publish
from tests.servers import RedisServer
from tests.wire import tls_server


def test_celery_needs_no_import_and_importing_kombu_costs_no_import_of_redisq() -> None:
    code = (
        "import kombu.serialization, sys; from kombu import Connection;"
        "assert 'redisq' not in sys.modules;"
        "print(Connection('redisq://h:1/2').get_transport_cls().driver_type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "redis\n", done.stderr


def test_a_list_of_urls_is_gone_through(connect: Connect, redis_url: str) -> None:
    ours = redis_url.replace("redis://", "redisq://")
    connection = connect(f"redisq://127.0.0.1:1/0;{ours}")
    connection.ensure_connection(max_retries=3, interval_start=0, interval_step=0)
    publish(connection, 1)
    assert get(connection, no_ack=True).payload == 1


def test_no_connection_is_an_error_that_kombu_knows(connect: Connect) -> None:
    connection = connect("redisq://:secret@127.0.0.1:1/0")
    with pytest.raises(connection.connection_errors) as failed:
        connection.connect()
    assert isinstance(failed.value, redis.ConnectionError)
    assert "secret" not in str(failed.value)
    assert connection.as_uri() == "redisq://:**@127.0.0.1:1/0"


def test_a_unix_socket_and_a_transport_that_is_named(connect: Connect) -> None:
    with RedisServer() as server:
        path = server.folder / "s"
        server.stop()
        server._options += ["--unixsocket", str(path)]
        server.start()
        connection = connect(f"redisq+socket://{path}?virtual_host=2")
        publish(connection, 1)
        assert server.client(2).zcard("q:queue:main") == 1
        other = kombu.Connection(server.url(2), transport="redisq.kombu:Transport")
        with other:
            assert isinstance(other.transport, redisq.kombu.Transport)
            assert get(other, no_ack=True).payload == 1


def test_options_that_do_nothing_are_told_once_and_unknown_ones_too(connect: Connect) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(2):
            connect(priority_steps=[0, 3], visibility_timeout=3600, colour="red", socket_keepalive=True).connect()
    texts = sorted(str(each.message) for each in told)
    assert [text.split()[2] for text in texts] == ["colour", "priority_steps", "visibility_timeout"]


def test_an_options_warning_comes_once_and_is_at_the_programs_line(connect: Connect) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        connect(retry_on_timeout=True).connect()
        with connect(retry_on_timeout=True).Producer() as producer:
            producer.publish("x", routing_key="q")
        with connect(retry_on_timeout=True) as another:
            assert get(another)
    assert len(told) == 1
    line = Path(told[0].filename).read_text().splitlines()[told[0].lineno - 1]
    assert (told[0].filename, line.strip()) == (__file__, "connect(retry_on_timeout=True).connect()")


def test_an_options_warning_is_not_said_again_by_each_process_of_celerys_pool(redis_url: str) -> None:
    """They are forked before the worker connects, and connect when a task sends another."""
    program = """
import sys, billiard.pool, kombu, redisq.kombu
def connect(_):
    kombu.Connection(sys.argv[1], transport_options={"fanout_prefix": True}).connect()
if __name__ == "__main__":
    with billiard.pool.Pool(2) as pool:
        pool.map(connect, range(4))
        connect(0)
        pool.map(connect, range(4))
"""
    url = redis_url.replace("redis://", "redisq://")
    ran = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stderr.count("option fanout_prefix has no effect") == 1, ran.stderr


def test_a_short_visibility_timeout_is_a_short_lease(connect: Connect) -> None:
    connection = connect(visibility_timeout=5)
    connection.connect()
    assert connection.transport.session.options.lease == 5


@pytest.mark.parametrize("option", [{"master_name": "m"}, {"lease": 2.5}, {"batch": 0}, {"queue_order_strategy": "odd"}])
def test_options_that_cannot_be_are_refused(connect: Connect, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        connect(**option).connect()


def test_every_option_of_the_stock_transport_is_known(connect: Connect) -> None:
    options = dict.fromkeys({*stock.Channel.from_transport_options, *stock.SentinelChannel.from_transport_options}, None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        connect(**{name: value for name, value in options.items() if "sentinel" not in name and name != "master_name"}).connect()
    assert not [each for each in told if "unknown" in str(each.message)]


def test_a_client_has_the_name_it_was_given(connect: Connect, raw: redis.Redis) -> None:
    publish(connect(client_name="shop"), 1)
    assert [each for each in raw.client_list() if each["name"] == "shop"]


# TLS


@dataclass
class Secure:
    """A server behind TLS, and the certificate of who vouches for it."""

    port: int
    ca: str


@pytest.fixture
def secure(redis_url: str, tmp_path: Path) -> Iterator[Secure]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    with tls_server(kombu.Connection(redis_url).port, context) as port:
        yield Secure(port, str(path))


def _publish_over(connection: kombu.Connection, raw: redis.Redis) -> None:
    with connection:
        publish(connection, 1)
        assert raw.zcard("q:queue:main") == 1
        assert get(connection, no_ack=True).payload == 1


def test_tls_by_scheme_with_its_options_in_the_url(secure: Secure, raw: redis.Redis) -> None:
    _publish_over(kombu.Connection(f"redisqs://localhost:{secure.port}/0?ssl_ca_certs={secure.ca}"), raw)


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ca_certs"])
def test_tls_by_broker_use_ssl(secure: Secure, raw: redis.Redis, name: str) -> None:
    _publish_over(kombu.Connection(f"redisq://localhost:{secure.port}/0", ssl={name: secure.ca}), raw)


def test_a_named_transport_keeps_the_tls_of_the_urls_scheme(secure: Secure, raw: redis.Redis) -> None:
    url = f"rediss://localhost:{secure.port}/0?ssl_ca_certs={secure.ca}"
    connection = kombu.Connection(url, transport="redisq.kombu:Transport")
    assert connection.as_uri().startswith("redisqs://localhost:")
    _publish_over(connection.clone(), raw)
    _publish_over(connection, raw)


@pytest.mark.parametrize("url", ["redisqs://localhost:{}/0", "rediss://localhost:{}/0"])
def test_a_certificate_that_nobody_vouches_for_is_refused(secure: Secure, url: str) -> None:
    named = {} if url.startswith("redisq") else {"transport": "redisq.kombu:Transport"}
    connection = kombu.Connection(url.format(secure.port), **named)
    with pytest.raises(connection.connection_errors, match="certificate verify failed"):
        connection.connect()


# Celery's result backend

#: Celery's own call of redis-py.
of_celery = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


class Loader(AppLoader):
    """Knows the backends as the entry points of the package name them."""

    override_backends: ClassVar[dict[str, str]] = dict.fromkeys(("redisq", "redisqs"), "redisq.kombu.results:RedisBackend")


def result_of(url: str, **settings: Any) -> Any:
    """Keep a result and read it, with the same URL for broker and results."""
    app = celery.Celery("app", broker=url, backend=url, loader=Loader, set_as_current=False)
    app.conf.update(settings)
    app.backend.store_result("id", {"n": 1}, "SUCCESS")
    answer = app.AsyncResult("id").get(timeout=5)
    app.backend.client.connection_pool.disconnect()
    return answer


@of_celery
def test_the_brokers_url_is_one_for_results_too(redis_url: str, raw: redis.Redis) -> None:
    assert result_of(redis_url.replace("redis://", "redisq://")) == {"n": 1}
    assert raw.exists("celery-task-meta-id"), "where Celery's own backend has it"


@of_celery
def test_the_brokers_url_is_one_for_results_too_over_tls(secure: Secure) -> None:
    assert result_of(f"redisqs://localhost:{secure.port}/0?ssl_ca_certs={secure.ca}") == {"n": 1}
    assert result_of(f"redisq://localhost:{secure.port}/0", broker_use_ssl={"ssl_ca_certs": secure.ca}) == {"n": 1}
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        result_of(f"redisqs://localhost:{secure.port}/0", redis_retry_on_timeout=False)


@of_celery
def test_the_brokers_url_is_one_for_results_too_on_a_unix_socket() -> None:
    with RedisServer() as server:
        path = server.folder / "s"
        server.stop()
        server._options += ["--unixsocket", str(path)]
        server.start()
        assert result_of(f"redisq+socket://{path}?virtual_host=2") == {"n": 1}
        assert server.client(2).exists("celery-task-meta-id")


@pytest.mark.parametrize("url", ["redisq://:hunter2@h:abc/0", "redisq://h/0;redisq://:hunter2@i/0", "redisqs://:hun#ter2@h/0"])
def test_a_url_that_cannot_be_one_for_results_is_an_error_without_its_password(url: str) -> None:
    app = celery.Celery("app", backend=url, loader=Loader, set_as_current=False)
    with pytest.raises(ConfigError) as refused:
        _ = app.backend
    assert "hun" not in str(refused.value)


# Passwords


@pytest.mark.parametrize(
    ("url", "shown", "options"),
    [
        ("redisq://joe:s%2Fcret@h:1/2", "redisq://joe:**@h:1/2", {}),
        ("redisqs://:s%2Fcret@h:1/2", "redisqs://:**@h:1/2", {}),
        ("redisq+socket://:s%2Fcret@/run/s", "redisq+socket://:**@/run/s", {}),
        ("redis://joe:s%2Fcret@h:1/2", "redisq://joe:**@h:1/2", {"transport": "redisq.kombu:Transport"}),
    ],
)
def test_passwords_are_masked(url: str, shown: str, options: dict[str, str]) -> None:
    connection = kombu.Connection(url, **options)
    assert connection.as_uri() == shown
    # Celery's `inspect stats` says all but the password itself.
    info = connection.info()
    assert info.pop("password") == "s/cret"
    for text in (repr(connection), repr(connection.transport.session.connector), repr(info)):
        assert "cret" not in text


#: What does not work -> what is said of it. Each has the password `hunter2`, or a part of it where kombu looks for something else.
MALFORMED = {
    "redisq://:hunter2@h:abc/0": "the port is not a number",
    "redisq://:hunter2@h:99999/0": "the port is not a number",
    "redisq://h:hunter2": "the port is not a number",
    "redisq://:hun/ter2@h:6379/0": "there is an @ behind the address|the port is not a number",
    "redisq://:hun#ter2@h:6379/0": "there is an @ behind the address|the port is not a number",
    "redisq://:hun?ter2@h:6379/0": "there is an @ behind the address|the port is not a number",
    "redisq://:hunter2@h:6379/x": "the path is not the number of a database",
    "redisq://:hunter2@h:6379/1/2": "the path is not the number of a database",
    "redisq://:hunter2@h:6379/0?foo=1": "unknown parameter 'foo'",
    "redisq://:hunter2@h:6379/0?virtual_hots=1": "did you mean 'virtual_host'",
    "redisq://:hunter2@h:6379/0?socket_timeout=1": "parameter 'socket_timeout' is not read from a broker URL",
    "redisq://:hunter2@h,i:6379/0": "it lists several hosts",
    "redisqs://:hunter2@h:abc/0": "the port is not a number",
    "redisq+socket://:hun#ter2@/run/s": "the port is not a number",
    "redisq+socket://:hunter2@": "the path of the socket is missing",
    "redisq://h:1/0;redisq://:hunter2@h:abc/0": "the port is not a number",
}


@pytest.mark.parametrize(("url", "says"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_a_malformed_url_is_an_error_that_says_why_and_shows_no_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        _ = kombu.Connection(url).transport
    whole = "".join(traceback.format_exception(refused.value)).partition("Error")[2]
    for part in ("hunter2", "hun", "ter2"):
        assert part not in str(refused.value)
        assert part not in whole


def test_a_malformed_url_is_refused_when_the_connection_is_made_and_with_a_named_transport_too() -> None:
    with pytest.raises(ConfigError, match="the port is not a number"):
        kombu.Connection("redisq://:hunter2@h:abc/0")
    with pytest.raises(ConfigError, match="the port is not a number") as refused:
        _ = kombu.Connection("redis://:hunter2@h:abc/0", transport="redisq.kombu:Transport").transport
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["redisq://h", "redisq://h/", "redisq://h//3", "redisq://[::1]:7/3", "redisq://j%2Fo:p%40%2F@h/1?heartbeat=5", "redisq://"],
)
def test_a_url_that_is_well_formed_is_taken(url: str) -> None:
    assert kombu.Connection(url).transport.session


def test_a_clone_of_a_connection_to_a_unix_socket_has_its_login() -> None:
    connection = kombu.Connection("redisq+socket://joe:s%2Fcret@/run/s?virtual_host=3")
    for each in (connection, connection.clone(), connection.clone().clone()):
        client = each.transport.session.connector._wire.client
        arguments = client.connection_pool.connection_kwargs
        assert {name: arguments[name] for name in ("username", "password", "path", "db")} == {
            "username": "joe", "password": "s/cret", "path": "/run/s", "db": 3,
        }  # fmt: skip


def test_a_named_transport_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(ConfigError, match="want redis"):
        _ = kombu.Connection("amqp://h", transport="redisq.kombu:Transport").transport
    with pytest.raises(ConfigError, match="several broker URLs"):
        _ = kombu.Connection("redis://h;redis://i", transport="redisq.kombu:Transport").transport


#: Holds a message, computes for longer than its lease without a pause, and looks whether somebody else can have it.
_COMPUTES = """
import sys
library, url = sys.argv[1:]
if library == "gevent":
    import gevent.monkey
    gevent.monkey.patch_all()
else:
    import eventlet
    eventlet.monkey_patch()
import time
import kombu, redisq.kombu

options = {"lease": 3}
with kombu.Connection(url, transport_options=options) as one, kombu.Connection(url, transport_options=options) as two:
    queue = one.SimpleQueue("q")
    queue.put("kept")
    message = queue.get(timeout=5)
    over = time.monotonic() + 5
    while time.monotonic() < over:
        pass
    other = two.SimpleQueue("q")
    try:
        print("lost", other.get(timeout=0.5).payload)
    except other.Empty:
        print(message.payload)
    message.ack()
"""


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_leases_are_renewed_over_tls_while_no_greenlet_runs(secure: Secure, raw: redis.Redis, library: str) -> None:
    url = f"redisqs://localhost:{secure.port}/0?ssl_ca_certs={secure.ca}"
    command = [sys.executable, "-W", "ignore", "-c", _COMPUTES, library, url]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "kept\n"
    assert raw.zcard("q:queue:processing") == 0
    assert raw.hlen("q:messages") == 0
