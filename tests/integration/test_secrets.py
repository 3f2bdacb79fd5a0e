"""Secrets go in by every door; none comes out by a log, a command, or what Redis keeps of a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from redisq.cli.main import main
from tests.integration.processes import ROOT, WorkerProcess, wait_until
from tests.servers import RedisServer, free_port

# In pieces, so that no scanner of this repository takes them for real ones.
BOT_TOKEN = "123456789:" + "AAHcanary-canary-canary-canary-cana"
API_KEY = "sk-" + "canaryCANARYcanaryCANARY0123"
URL_PASSWORD = "canary/P@ss#word?1"
VARIABLE = "canary-of-the-environment"
HEADER = "canary-of-the-header"

#: No part of a secret may be shown either.
NEVER = (BOT_TOKEN, "AAHcanary", API_KEY, "canaryCANARY", URL_PASSWORD, "canary%2FP", "P@ss#word", "P%40ss", VARIABLE, HEADER)

APP = """
import asyncio
import logging
import os
import threading

from redisq import Middleware, RedisQ

class Broken(Middleware):
    def settle(self, end):
        raise RuntimeError(f"OPENAI_API_KEY={os.environ['CANARY_KEY']}")

app = RedisQ("canary_bot", middleware=[Broken()])
options = {"max_retries": 1, "retry_backoff": 0.01}

def fail(token, password):
    url = f"https://api.telegram.org/bot{token}/sendMessage"
    logging.getLogger("httpx").info('HTTP Request: POST %s "HTTP/1.1 400 Bad Request"', url)
    logging.getLogger("urllib3").debug("GET %s", url)
    logging.getLogger("asyncio").error("Task exception was never retrieved, %s", url, exc_info=OSError(url))
    logging.getLogger("canary_app").info("the app's own line")
    header = {"Authorization": f"Bot {os.environ['CANARY_HEADER']}", "Cookie": f"id={os.environ['CANARY_HEADER']}"}
    error = ValueError(f"400 for {url}, headers {header}, MY_PASSWORD={password} key {os.environ['CANARY_KEY']}")
    try:
        raise OSError(f"cannot connect to redis://:{password}@cache, PASSWORD={os.environ['CANARY_VARIABLE']}")
    except OSError as cause:
        raise error from cause

@app.task(**options)
async def in_the_loop(token, *, password): fail(token, password)

@app.task(**options)
def in_a_thread(token, *, password): fail(token, password)

@app.task(**options, pool="process")
def in_a_process(token, *, password): fail(token, password)

@app.task(max_retries=0, ack="early")
async def once(token, *, password): fail(token, password)

@app.task(max_retries=0, result_ttl=60)
async def no_result(token, *, password): return object

@app.task(max_retries=0)
async def in_a_group(token, *, password):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(fail, token, password))

@app.task(max_retries=0)
async def chats(text): pass
"""

SEND = """
import os
from canary_app import app
for task in app.tasks.values():
    if task.definition.name != "chats":
        task.delay(os.environ["CANARY_TOKEN"], password=os.environ["CANARY_VARIABLE"])
app.tasks["chats"].options(countdown=3600).delay(f"password={os.environ['CANARY_VARIABLE']} {os.environ['CANARY_TOKEN']}")
"""

COMMANDS = (
    ("status",), ("status", "--json"), ("dead", "list"), ("dead", "list", "--json"), ("doctor",), ("doctor", "--json"),
    ("workers", "--running"), ("workers", "--json"), ("limits", "list"), ("limits", "list", "--json"),
)  # fmt: skip


@pytest.fixture
def environ() -> dict[str, str]:
    return {
        "CANARY_TOKEN": BOT_TOKEN, "CANARY_KEY": API_KEY, "CANARY_VARIABLE": VARIABLE, "CANARY_HEADER": HEADER,
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", URL_PASSWORD)
        yield server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, password=URL_PASSWORD, protocol=2) as client:
        yield client


def silent(text: str, where: str) -> str:
    """The text, which has no secret, whole or in part."""
    for canary in NEVER:
        assert canary not in text, f"{canary} in {where}:\n{text}"
    return text


def run(folder: Path, url: str, environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDISQ_URL": url, **environ},
    )  # fmt: skip
    return silent(done.stdout + done.stderr, " ".join(command))


def cli(url: str, *command: str) -> str:
    result = CliRunner(env={"REDIS_TIMEOUT": "0.5"}).invoke(main, [*command, "--url", url])
    return silent(result.output, " ".join(command))


def _later(raw: redis.Redis) -> list[str]:
    return [ident.decode() for ident in raw.zrange("canary_bot:queue:delayed", 0, -1)]


def test_no_secret_is_shown_on_any_path(server: RedisServer, raw: redis.Redis, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "canary_app.py").write_text(APP)
    (tmp_path / "send.py").write_text(SEND)
    url = f"redis://:canary%2FP%40ss%23word%3F1@127.0.0.1:{server.port}"
    worker = WorkerProcess(
        url, tmp_path, "--log-level", "debug", app="canary_app:app", folder_to_run_in=tmp_path, PYTHONPATH=str(ROOT), **environ
    )
    try:
        worker.ready()
        run(tmp_path, url, environ, "send.py")
        wait_until(lambda: raw.zcard("canary_bot:queue:dlq") == 4 and not raw.zcard("canary_bot:queue:main"), "all have failed")
        wait_until(lambda: raw.zcard("canary_bot:queue:processing") == 0, "all are settled")
        kept = [(key, raw.hgetall(key)) for key in raw.keys("*") if raw.type(key) == b"hash" and not key.endswith(b":messages")]
        silent(repr(kept), "what Redis keeps beside the messages")
        for command in COMMANDS:
            cli(url, *command)
        dead = [letter["id"] for letter in json.loads(cli(url, "dead", "list", "--json"))["dead"]]
        assert len(dead) == 4
        for command in ("inspect", "dead show"):
            for ident in (*dead, *_later(raw)) if command == "inspect" else dead:
                for options in ((), ("--json",), ("--show-args", "--json")):
                    cli(url, *command.split(), ident, *options)
        assert worker.terminate() == 0
    finally:
        worker.kill()
    log = silent(worker.text(), "the log")
    for task in ("in_the_loop", "in_a_thread", "in_a_process", "once", "no_result", "in_a_group"):
        assert f"Task {task}[" in log
    assert "the app's own line" in log
    assert "HTTP Request" not in log, "INFO of other packages has whole URLs"
    assert " asyncio - ERROR - Task exception was never retrieved" in log, "their errors are shown"
    assert max(map(len, log.splitlines())) < 10_000


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{URL_PASSWORD}@127.0.0.1:{{port}}",
        "redis://:canary%2FP%40ss%23word%3F1@127.0.0.1:{free}",
        "redis://:canary%2FP%40ss%23word%3F1x@127.0.0.1:{port}",
        "redis://canary%2FP:canary%2FP%40ss%23word%3F1@127.0.0.1:{port}/99",
        "redis://127.0.0.1:{port}?password=canary%2FP%40ss%23word%3F1x",
        "redis://127.0.0.1:{port}?pasword=canary%2FP%40ss%23word%3F1x",
    ],
    ids=["not escaped", "nobody there", "wrong", "no such user and database", "wrong, as a parameter", "misspelt"],
)
def test_no_password_is_shown_when_redis_cannot_be_reached(
    url: str, server: RedisServer, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "canary_app.py").write_text(APP)
    address = url.format(port=server.port, free=free_port())
    environ = {**environ, "REDIS_TIMEOUT": "0.3"}
    for command in ("status", "doctor", "workers"):
        cli(address, command)
    run(tmp_path, address, environ, "-m", "redisq", "send", "canary_app:app", "chats", '["x"]')
    if "{free}" not in url:
        run(tmp_path, address, environ, "-m", "redisq", "worker", "canary_app:app", "--log-level", "debug")


def test_no_secret_is_shown_when_the_app_cannot_be_imported(redis_url: str, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken_app.py").write_text("import os\nraise RuntimeError(f\"bad token {os.environ['CANARY_TOKEN']}\")\n")
    for command in (("worker", "broken_app:app"), ("status", "-A", "broken_app:app")):
        shown = run(tmp_path, redis_url, environ, "-m", "redisq", *command)
        assert "RuntimeError: bad token ***" in shown
        assert 'broken_app.py", line 2, in <module>' in shown
