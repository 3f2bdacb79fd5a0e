"""Celery's own integration tests of tasks, canvas and inspect, on its worker with prefork and our transport.

They wait more than they work, so they run in several processes, each with a server and a worker of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compat.sources import unpacked
from tests.servers import RedisServer

pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]

FILES = ("test_tasks.py", "test_canvas.py", "test_inspect.py")

#: Test -> why it cannot pass.
EXCLUDED = {
    "test_scheduled": "looks for a delayed task in the worker's memory: it waits in Redis",
    "test_task_success": "gives the worker 10 ms after the result to write its log",
    "test_task_failed": "gives the worker 10 ms after the result to write its log",
    "test_revoked_by_headers_complex_canvas": "has 20 s for what takes a worker with one process longer; so on the stock transport",
    "test_chord_on_error": "looks for results in database 0, where this harness has none; so on the stock transport",
}

#: Processes.
SHARDS = 10

#: Test -> seconds that it waits for nothing to happen, and what others take, about: so that no process has too much.
SLOW = {
    "test_disabling_flag_allow_error_cb_on_chord_header": 140,
    "test_enabling_flag_allow_error_cb_on_chord_header": 80,
    "test_flag_allow_error_cb_on_chord_header_on_upgraded_chord": 60,
    "test_error_propagates_from_chord": 60,
    "test_retry": 30,
    "test_nested_chord_header_link_error": 20,
}
USUAL = 3

#: What is left, less those that Celery itself skips.
FEWEST = 290


def _pytest(source: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "pytest", "-p", "celery.contrib.pytest", "-p", "no:randomly", "-p", "no:cacheprovider",
        "-p", "no:xdist", "-c", os.devnull, "--rootdir", str(source), "-o", "python_classes=test_*", "-q", "--timeout", "300",
        "--tb", "short", "-W", "ignore", *arguments,
    ]  # fmt: skip


def _environment(source: Path, server: RedisServer) -> dict[str, str]:
    return {
        **os.environ, "PYTHONPATH": str(source), "WORKER_LOGLEVEL": "INFO", "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(server.port), "TEST_BROKER": server.url().replace("redis://", "redisq://"), "TEST_BACKEND": server.url(1),
    }  # fmt: skip


def _shards(names: dict[str, str]) -> list[list[str]]:
    """Ids of tests, by process; each goes to who has least to do."""
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    seconds = [0] * SHARDS
    for ident, name in sorted(names.items(), key=lambda each: -SLOW.get(each[1], USUAL)):
        least = seconds.index(min(seconds))
        seconds[least] += SLOW.get(name, USUAL)
        shards[least].append(ident)
    return shards


def _start(command: list[str], source: Path, server: RedisServer, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as log:
        return subprocess.Popen(
            command, cwd=source, env=_environment(source, server), stdout=log, stderr=log, start_new_session=True
        )


def test_celerys_tests_of_tasks_canvas_and_inspect_pass(server: RedisServer, tmp_path: Path) -> None:
    source = unpacked("celery")
    files = [f"t/integration/{name}" for name in FILES]
    collected = subprocess.run(
        _pytest(source, "--collect-only", *files),
        cwd=source, env=_environment(source, server), capture_output=True, text=True, check=True,
    )  # fmt: skip
    ids = {ident: ident.partition("[")[0].rpartition("::")[2] for ident in collected.stdout.splitlines() if "::" in ident}
    assert set(EXCLUDED) <= set(ids.values())
    wanted = _shards({ident: name for ident, name in ids.items() if name not in EXCLUDED})
    outputs = [tmp_path / f"shard{number}" for number in range(SHARDS)]
    with ExitStack() as stack:
        shards = [
            stack.enter_context(_start(_pytest(source, *mine), source, stack.enter_context(RedisServer()), output))
            for mine, output in zip(wanted, outputs, strict=True)
        ]
        for shard in shards:
            shard.wait()
    texts = [output.read_text() for output in outputs]
    failed = [text[-6000:] for shard, text in zip(shards, texts, strict=True) if shard.returncode]
    assert not failed, "\n".join(failed)
    assert sum(int(count) for text in texts for count in re.findall(r"(\d+) passed", text)) >= FEWEST
