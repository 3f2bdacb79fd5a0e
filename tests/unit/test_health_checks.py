"""The little HTTP server of the health checks: what it answers, and what it bears."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redisq.errors import ConfigError
from redisq.worker.health import MAX_CLIENTS, Health, Report, ask
from redisq.worker.outage import Outage
from redisq.worker.readiness import AWAY, Readiness

LOG = logging.getLogger("test")


async def live() -> Report:
    return Report(True, {"live": True})


async def ready() -> Report:
    return Report(False, {"why": "starting"})


async def broken() -> Report:
    raise ValueError("no")


REPORTS = {"live": live, "ready": ready, "broken": broken}
Talk = Callable[[bytes], tuple[str, dict[str, object]]]


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health(("127.0.0.1", 0), REPORTS, LOG)
    yield health
    health.stop()


@pytest.fixture
def talk(health: Health) -> Talk:
    """Send these bytes; give the status line and the body."""

    def talk(request: bytes) -> tuple[str, dict[str, object]]:
        with socket.create_connection(("127.0.0.1", health.port), 10) as client:
            client.sendall(request)
            reply = b"".join(iter(lambda: client.recv(4096), b""))
        head, _, body = reply.partition(b"\r\n\r\n")
        return head.split(b"\r\n")[0].decode(), json.loads(body) if body else {}

    return talk


def test_a_good_report_is_200_and_another_503(talk: Talk) -> None:
    assert talk(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n") == ("HTTP/1.1 200 OK", {"live": True})
    assert talk(b"GET /ready?x=1 HTTP/1.0\r\n\r\n") == ("HTTP/1.1 503 Service Unavailable", {"why": "starting"})


def test_what_head_asks_for_has_no_body(talk: Talk) -> None:
    assert talk(b"HEAD /live HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", {})


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /live HTTP/1.1\r\n\r\n", 400),
        (b"GET /live\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\n\r\n", 404),
        (b"GET /live HTTP/1.1\r\nX: " + b"a" * 5000, 431),
    ],
    ids=["other", "post", "no protocol", "empty", "tls", "not ascii", "long", "too long"],
)
def test_what_is_no_request_is_refused_in_words(talk: Talk, request_: bytes, status: int) -> None:
    line, body = talk(request_)
    assert line.split()[1] == str(status)
    assert set(body) == {"error"}


def test_a_report_that_fails_is_logged_and_the_next_is_answered(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    assert talk(b"GET /broken HTTP/1.1\r\n\r\n") == ("HTTP/1.1 500 Internal Server Error", {"error": "see the log"})
    assert "A health check failed" in caplog.text
    assert talk(b"GET /live HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 200 OK"


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_more_clients_than_it_bears_are_turned_away(health: Health) -> None:
    silent = [socket.create_connection(("127.0.0.1", health.port)) for _ in range(MAX_CLIENTS)]
    try:
        with socket.create_connection(("127.0.0.1", health.port), 10) as one_more:
            assert is_closed(one_more)
    finally:
        for client in silent:
            client.close()


def test_a_stopped_one_gives_its_address_free() -> None:
    health = Health(("127.0.0.1", 0), REPORTS, LOG)
    address = "127.0.0.1", health.port
    health.stop()
    Health(address, REPORTS, LOG).stop()


def test_an_address_that_is_taken_is_an_error_that_names_it(health: Health) -> None:
    with pytest.raises(ConfigError, match=rf"cannot listen on .*{health.port}.* for health checks: Address already in use"):
        Health(("127.0.0.1", health.port), REPORTS, LOG)


def test_a_unix_socket_is_asked_and_one_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "0")
    assert asyncio.run(ask(path, "live")) == Report(False, {"why": "it does not answer"})
    for _ in range(2):
        health = Health(path, REPORTS, LOG)
        assert asyncio.run(ask(path, "live")) == Report(True, {"live": True})
        assert asyncio.run(ask(path, "ready")) == Report(False, {"why": "starting"})
        health.stop()


def test_redis_is_away_when_it_failed_last_or_was_silent_too_long() -> None:
    now = 100.0
    outage = Outage(LOG, lambda: now)
    readiness = Readiness(outage, lambda: False, lambda: False, lambda: now)
    one, other = outage.line(), outage.line()

    def why() -> object:
        return asyncio.run(readiness.ready()).about.get("why")

    assert why() == "starting"
    now += 1
    one.down(OSError("no"))
    other.down(OSError("no"))
    assert why() == "Redis is away since 1 s"
    now += 1
    one.up()
    assert why() == "starting", "it answers, though not every line has heard of it"
    now += AWAY + 1
    assert why() == "Redis is away since 13 s"
