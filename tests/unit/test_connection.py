"""From a URL to clients: what is accepted, what is shown, and how every client is set up."""

from __future__ import annotations

import asyncio
import re
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq import RedisQ
from redisq.broker import commands
from redisq.broker.connection import Server, masked, timeout_from_environment, url_from_environment
from redisq.broker.keys import QueueKeys
from redisq.errors import ConfigError
from tests.servers import RedisServer


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"REDISQ_URL": "rediss://example.org/3"}, "rediss://example.org/3"),
        ({"REDISQ_URL": "redis://a", "REDIS_HOST": "b"}, "redis://a"),
        ({"REDISQ_URL": "", "REDIS_HOST": "b"}, "redis://b:6379/0"),
        ({"REDIS_HOST": "localhost"}, "redis://localhost:6379/0"),
        ({"REDIS_HOST": "r", "REDIS_PORT": "6380", "REDIS_DB": "2"}, "redis://r:6380/2"),
        ({"REDIS_HOST": "r", "REDIS_PORT": "", "REDIS_DB": "", "REDIS_PASSWORD": ""}, "redis://r:6379/0"),
        ({"REDIS_HOST": "r", "REDIS_PASSWORD": "p@s/s:w%rd ?#"}, "redis://:p%40s%2Fs%3Aw%25rd%20%3F%23@r:6379/0"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
    ],
    ids=str,
)
def test_the_environment_says_where_redis_is(environ: dict[str, str], url: str) -> None:
    assert url_from_environment(environ) == url
    Server(url)


@pytest.mark.parametrize("name", ["REDIS_PORT", "REDIS_DB"])
@pytest.mark.parametrize("value", ["x", "-1", "1.5", "6379/0"])
def test_a_variable_that_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}="):
        url_from_environment({"REDIS_HOST": "r", name: value})


@pytest.mark.parametrize(("value", "seconds"), [(None, 5), ("", 5), ("2", 2), ("0.5", 0.5)])
def test_the_environment_says_how_long_an_answer_may_take(value: str | None, seconds: float) -> None:
    assert timeout_from_environment({} if value is None else {"REDIS_TIMEOUT": value}) == seconds


def test_a_timeout_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_TIMEOUT='soon'"):
        timeout_from_environment({"REDIS_TIMEOUT": "soon"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://user:secret@host", "redis://user:***@host"),
        ("rediss://user:se:c@ret@host/1", "rediss://user:***@host/1"),
        ("redis://:se/c?r#et@host/1", "redis://:***@host/1"),
        ("redis://user@host", "redis://user@host"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        ("redis://host?db=1&PASSWORD=secret", "redis://host?db=1&PASSWORD=***"),
        ("redis://host?ssl_password=secret", "redis://host?ssl_password=***"),
        ("unix://:secret@/run/redis.sock?db=1", "unix://:***@/run/redis.sock?db=1"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock?password=***"),
    ],
)
def test_a_password_in_a_url_is_never_shown(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url", ["http://host", "localhost:6379", "", "redis:6379", "REDIS://host", "sentinel://h/s", "redis+cluster://h", "REDIS"]
)
def test_a_url_of_another_kind_is_an_error_that_shows_good_ones(url: str) -> None:
    with pytest.raises(ConfigError, match="want redis://host:port/db"):
        Server(url)


def test_the_error_of_a_bad_url_hides_its_password() -> None:
    with pytest.raises(ConfigError) as refused:
        Server("http://user:secret@host")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"max_connections": 0}])
def test_a_limit_of_nothing_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="want more than 0"):
        Server("redis://host", **options)


URLS = [
    "redis://host:7000/3",
    "rediss://host/0",
    "unix:///run/redis.sock?db=2",
    "redis://host?protocol=3&decode_responses=1&retry_on_timeout=yes",
]


def _check(connection: Any, read_timeout: float) -> None:
    """The same for every client: see the module's first words."""
    assert connection.protocol in (2, "2")
    assert connection.retry.get_retries() == 0
    assert connection.socket_timeout == read_timeout
    assert connection.socket_connect_timeout == 3
    assert connection.client_name == "redisq:worker"
    assert not connection.encoder.decode_responses
    assert not connection.health_check_interval


@pytest.mark.parametrize("url", URLS)
def test_a_sync_client_speaks_protocol_2_never_retries_and_never_waits_for_ever(url: str) -> None:
    connector = Server(url, timeout=3, max_connections=7).connector("worker")
    assert connector._wire._slots._value == 7
    _check(connector._wire._pool.make_connection(), 3)
    connector.close()


@pytest.mark.parametrize("url", URLS)
def test_an_async_client_speaks_protocol_2_never_retries_and_never_waits_for_ever(url: str) -> None:
    async def check() -> None:
        connector = Server(url, timeout=3, max_connections=7).async_connector("worker", block=1)
        assert connector._wire._slots._value == 7
        _check(connector._wire._pool.make_connection(), 4)
        await connector.aclose()

    asyncio.run(check())


def test_the_url_says_host_port_and_database() -> None:
    connector = Server("redis://user:p%40ss@host:7000/3").connector("worker")
    where = connector._wire._pool.connection_kwargs
    assert {name: where[name] for name in ("host", "port", "db", "username", "password")} == {
        "host": "host", "port": 7000, "db": 3, "username": "user", "password": "p@ss",
    }  # fmt: skip
    connector.close()


def test_a_client_of_a_unix_socket_works() -> None:
    server = RedisServer(None, "--unixsocket", "redis.sock")
    server.start()
    try:
        where = Server(f"unix://{server.folder}/redis.sock")
        connector = where.connector("test")
        assert connector.execute(commands.inspect(QueueKeys("q"))).waiting == 0
        connector.close()

        async def look() -> None:
            async_connector = where.async_connector("test")
            assert (await async_connector.execute(commands.inspect(QueueKeys("q")))).waiting == 0
            await async_connector.aclose()

        asyncio.run(look())
    finally:
        server.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:hun/ter2@host:6379/0", "%2F"),
        ("redis://:hun#ter2@host:6379/0", "%23"),
        ("redis://:hun?ter2@host:6379/0", "%3F"),
        ("redis://:hun:ter2@host:abc/0", "the port is not a number"),
        ("redis://user:hunter2", "the port is not a number"),
        ("redis://:hunter2@host:6379/x", "not the number of a database"),
        ("redis://:hunter2@host:6379/1/2", "not the number of a database"),
        ("redis://:hunter2@host:6379?db=x", "db= is not the number"),
        ("redis://:hunter2@host?foo=1", "unknown parameter 'foo'"),
        ("redis://:hunter2@host?socket_timeot=1", "did you mean 'socket_timeout'?"),
        ("redis://:hunter2@host?socket_timeout=soon", "wrong type"),
        ("redis://:hunter2@host?ssl_cert_reqs=none", "unknown parameter 'ssl_cert_reqs'"),
        ("redis://:hunter2@a:1,b:2/0", "several hosts|the port is not a number"),
        ("redis://:hunter2@a,b/0", "several hosts"),
        ("redis://:hunter2@host:/0", "the port is missing"),
        ("unix://?password=hunter2", "the path of the socket is missing"),
        ("http://:hunter2@host", "want redis://"),
    ],
)
def test_a_malformed_url_is_an_error_that_says_why_and_shows_no_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        RedisQ("bot", url=url)
    shown = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in str(raised.value)
    assert "ter2" not in shown.replace(url, "")


FORMS = ["redis://:{}@host:6379/0", "redis://user:{}@host/1", "rediss://user:{}@host", "unix://:{}@/run/redis.sock"]


@given(password=st.text(alphabet="abcxyz/#?@:&=%,[]. \\", min_size=6, max_size=20), form=st.sampled_from(FORMS))
def test_no_password_of_any_url_is_ever_shown(password: str, form: str) -> None:
    password = f"sec{password}ret"
    try:
        shown = repr(Server(form.format(password)))
    except ConfigError as error:
        shown = f"{error} {error!r}"
    assert password not in shown
    for part in re.split(r"[/#?@:&=%,\[\]. \\\\]", password):
        assert len(part) < 3 or part not in shown
