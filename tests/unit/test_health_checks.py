"""The little HTTP server of the health checks: what it answers, and what it bears."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from redisq.broker import pulse
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys
from redisq.cancelling import end_tasks
from redisq.errors import ConfigError
from redisq.troubles import Troubles
from redisq.worker.consumer import refused
from redisq.worker.health import MAX_CLIENTS, Health, Report, ask
from redisq.worker.outage import Outage
from redisq.worker.readiness import Readiness

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


@pytest.mark.parametrize("said", [b"", b"GET /live HTTP/1.1\r\nX: "], ids=["nothing", "half of a request"])
def test_probe_is_answered_however_many_idle_clients_there_are(health: Health, talk: Talk, said: bytes) -> None:
    with ExitStack() as stack:
        idle = []
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", health.port), 10))
            with suppress(OSError):  # dropped already
                client.sendall(said)
            idle.append(client)
        for _ in range(3):
            assert talk(b"GET /live HTTP/1.1\r\n\r\n")[0] == "HTTP/1.1 200 OK"
        assert all(is_closed(client) for client in idle[: 200 - MAX_CLIENTS]), "the oldest are dropped"
        idle[-1].sendall(b"GET /ready HTTP/1.1\r\n\r\n" if not said else b"y\r\n\r\n")
        assert idle[-1].recv(12) == (b"HTTP/1.1 503" if not said else b"HTTP/1.1 200"), "the newest are kept"


def test_client_that_is_being_answered_is_not_dropped_for_another() -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    async def slow() -> Report:
        asked.release()
        await asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
        return Report(True, {})

    health = Health(("127.0.0.1", 0), {"slow": slow}, LOG)
    try:
        with ExitStack() as stack:

            def connect() -> socket.socket:
                return stack.enter_context(socket.create_connection(("127.0.0.1", health.port), 10))

            clients = [connect() for _ in range(MAX_CLIENTS)]
            for client in clients:
                client.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
                assert asked.acquire(timeout=10)
            assert is_closed(connect())
            go.set()
            assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}
    finally:
        go.set()
        health.stop()


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
    now = heard = 100.0
    outage = Outage(LOG, lambda: now)
    readiness = Readiness(outage, lambda: heard, lambda: False, list, lambda: now)
    one, other = outage.line(), outage.line()

    def why() -> object:
        return asyncio.run(readiness.ready()).about.get("why")

    assert why() == "starting"
    now += 1
    one.down(OSError("no"))
    other.down(OSError("no"))
    assert why() == "Redis has been away for 1 s"
    now += 1
    one.up()
    assert why() == "starting", "it answers, though not every line has heard of it"
    now += 2
    assert why() == "Redis has been away for 2 s"
    heard = now
    assert why() == "starting", "the worker asks nothing at present, and Redis is there"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """A pulse that beats faster, for a test to see many beats."""
    monkeypatch.setattr(pulse, "INTERVAL", 0.02)
    return 0.02


async def server_that_answers(after: float, reply: bytes = b"+PONG\r\n") -> asyncio.Server:
    """Answer each PING so many seconds later, and all else at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                count = int((await reader.readline())[1:] or 0)
                if not count:
                    break
                words = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(count)]
                if words == [b"PING"]:
                    loop.call_later(after, lambda: writer.is_closing() or writer.write(reply))
                else:
                    writer.write(b"+OK\r\n")
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def test_slow_server_that_answers_is_never_taken_for_away(quick: float) -> None:
    async def silences() -> list[float]:
        """Of twenty answers in a row, the seconds between them."""
        async with await server_that_answers(after=30 * quick) as server:
            pulse = Server(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}").pulse()
            heard = [pulse.answered]
            task = asyncio.create_task(pulse.run())
            async with asyncio.timeout(30):
                while len(heard) < 22:
                    await asyncio.sleep(quick / 4)
                    if pulse.answered != heard[-1]:
                        heard.append(pulse.answered)
            await end_tasks((task,))
        return [after - before for before, after in pairwise(heard[1:])]

    assert median(asyncio.run(silences())) < 10 * quick, "answers come as often as questions, however late each one is"


@pytest.mark.parametrize(
    ("reply", "there"),
    [
        (b"+PONG\r\n", True),
        (b"-NOPERM this user has no permissions to run the 'ping' command\r\n", True),
        (b"-MISCONF Errors writing to the AOF file\r\n", True),
        (b"-LOADING Redis is loading the dataset in memory\r\n", False),
        (b"-MASTERDOWN Link with MASTER is down\r\n", False),
    ],
)
def test_server_is_there_when_it_answers_whatever_it_says_but_not_while_it_loads(quick: float, reply: bytes, there: bool) -> None:
    async def is_there() -> bool:
        async with await server_that_answers(0, reply) as server:
            pulse = Server(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}").pulse()
            made = pulse.answered
            task = asyncio.create_task(pulse.run())
            loop = asyncio.get_running_loop()
            until = loop.time() + (10 if there else 10 * quick)
            while pulse.answered == made and loop.time() < until:  # noqa: ASYNC110
                await asyncio.sleep(quick)
            await end_tasks((task,))
            return pulse.answered != made

    assert asyncio.run(is_there()) is there


@pytest.mark.parametrize(
    ("trouble", "queues"),
    [("claim from queue b", ["b"]), ("settle on queue a", ["a"]), ("wait for work", ["a", "b"]), ("wake queue a", [])],
)
def test_worker_is_not_ready_while_any_of_its_queues_is_refused(trouble: str, queues: list[str]) -> None:
    troubles = Troubles(LOG)
    keys = [QueueKeys("a"), QueueKeys("b")]
    assert refused(keys, troubles) == []
    troubles.met(trouble, OSError("no"))
    assert refused(keys, troubles) == queues
    troubles.over(trouble)
    assert refused(keys, troubles) == []
