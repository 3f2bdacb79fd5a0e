from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kombu
import pytest

from redisq import RedisQ
from tests.integration.kombu_client import Connect
from tests.integration.operator import Operator, Stage
from tests.integration.processes import WorkerProcess


@pytest.fixture
def start_worker(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes; neither they nor their children outlive the test."""
    started: list[WorkerProcess] = []

    def start(*options: str, **environment: str) -> WorkerProcess:
        worker = WorkerProcess(environment.pop("url", redis_url), tmp_path, *options, **environment)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill_all()


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """What the handlers and hooks of the started workers wrote to the ledger, in words."""

    def read() -> list[list[str]]:
        path = tmp_path / "ledger"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def producer(redis_url: str) -> Iterator[RedisQ]:
    """The bot's app in this process, on the test's server."""
    from tests.integration import bot

    app = RedisQ("bot_logic", url=redis_url)
    for task in bot.app.tasks.values():
        options = task.definition
        app.task(name=options.name, queue=options.queue)(task.handler)
    yield app
    app.close()


@pytest.fixture
def connect(redis_url: str) -> Iterator[Connect]:
    """Make connections to the test's server; all are closed at the end."""
    made: list[kombu.Connection] = []

    def make(url: str = "", **options: Any) -> kombu.Connection:
        connection = kombu.Connection(url or redis_url.replace("redis://", "redisq://"), transport_options=options)
        made.append(connection)
        return connection

    yield make
    for connection in made:
        connection.release()


@pytest.fixture
def chat_api() -> Iterator[str]:
    """A chat API over real HTTP: echoes, and answers 500 to what begins with "bad"."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(500 if text.startswith("bad") else 200)
            self.end_headers()
            self.wfile.write(f"re:{text}".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def operator(redis_url: str) -> Operator:
    """The command line, on the test's server."""
    return Operator(redis_url)


@pytest.fixture
def stage(redis_url: str) -> Iterator[Stage]:
    """Brings messages into the states that a command is to find."""
    app = RedisQ("bot", url=redis_url)
    yield Stage(app)
    app.close()


@pytest.fixture
def bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with one app, named anew for each test, as `-A` takes it; its folder is the current one."""
    name = f"bot_{tmp_path.name.replace('-', '_')}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / f"{name}.py").write_text(
        "from redisq import RedisQ\n"
        "app = RedisQ('bot_logic')\n"
        "@app.task(queue='chat_api', priority=3)\n"
        "def answer(chat_id: int, text: str) -> None: ...\n"
        "@app.task(queue='mail')\n"
        "def mail(to: str) -> None: ...\n"
    )
    return f"{name}:app"
