"""Carry out the examples of one page."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.docs.expected import Ids
from tests.docs.not_run import why_not
from tests.docs.pages import ROOT, Block
from tests.integration.processes import wait_until

#: Seconds that one command may take, and that a line is awaited.
PATIENCE = 20

#: What a test must not do to the machine that it runs on.
_NEVER = ("pip ", "pipx ", "uv ", "docker", "sudo ", "apt", "systemctl", "kubectl", "crontab")

#: Commands that only look: asked again until they show what the page says, for workers need their time.
_LOOKS = (
    "redis-cli zcard",
    "redis-cli hgetall",
    "redis-cli hget",
    "redisq status",
    "redisq inspect",
    "redisq dead list",
    "redisq workers",
)


class Background:
    """A command that goes on."""

    def __init__(self, command: str, process: subprocess.Popen[bytes], output: Path) -> None:
        self.command = command
        self._process = process
        self._output = output
        self._seen = 0

    def text(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def await_lines(self, lines: list[str], ids: Ids, place: str) -> None:
        """Wait for each line in its turn, behind those that were awaited before."""
        for line in lines:

            def came(line: str = line) -> bool:
                printed = self.text().splitlines()
                for at in range(self._seen, len(printed)):
                    if ids.fits(line, printed[at], within=True):
                        self._seen = at + 1
                        return True
                assert self._process.poll() is None, f"{place}: `{self.command}` ended:\n{self.text()}"
                return False

            wait_until(came, f"{place}: {line!r} in the output of `{self.command}`:\n{self.text()}", PATIENCE)

    def stop(self) -> None:
        """End it as an operator would; a worker has to end well."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        expected = (0,) if "redisq worker" in self.command else (0, -signal.SIGTERM)
        assert code in expected, f"`{self.command}` ended with {code}:\n{self.text()}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)


class Scenario:
    """One page on one server.

    Args:
        port: The server's.
        folder: Empty; the current folder of all that runs.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder / "page"
        self._folder.mkdir()
        self._logs = folder
        self._ids = Ids()
        self._printed: str | None = None
        self._background: list[Background] = []
        self._groups: list[int] = []
        self._interpreter: subprocess.Popen[str] | None = None
        tools = folder / "bin"
        tools.mkdir()
        self._write_redis_cli(tools / "redis-cli")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("REDISQ_", "REDIS_"))}
        self._environment = {
            **kept,
            "PATH": os.pathsep.join((str(tools), str(Path(sys.executable).parent), kept["PATH"])),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "REDISQ_URL": f"redis://127.0.0.1:{port}/0",
            "LC_ALL": "C.UTF-8",
        }

    def _write_redis_cli(self, path: Path) -> None:
        real = None if os.environ.get("REDISQ_TEST_NO_REDIS_CLI") else shutil.which("redis-cli")
        stand_in = f'"{sys.executable}" "{Path(__file__).parent / "redis_cli.py"}" {self._port}'
        command = f'"{real}" -p {self._port} --no-raw' if real else stand_in
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)

    def run(self, block: Block) -> None:
        """Carry out one block.

        Raises:
            AssertionError: It does not do what the page says, or nothing says what to do with it.
        """
        actions: dict[tuple[str, str], Callable[[Block], None]] = {
            ("python", ""): self._python,
            ("console", ""): self._console,
            ("console", "background"): self._console,
            ("text", "output"): self._output,
            ("text", "log"): self._log,
            ("text", "drawing"): lambda _: None,
        }
        action = self._file if block.mark == "file" else actions.get((block.language, block.mark))
        assert action, (
            f"{block.place}: nothing says how to run a block of {block.language or 'no language'!r}: see tests/docs/pages.py"
        )
        action(block)

    def _real(self, text: str) -> str:
        return self._ids.put_in(text).replace("localhost:6379", f"127.0.0.1:{self._port}")

    def _python(self, block: Block) -> None:
        self._ask(block, {"code": self._real(block.text), "page": block.page, "line": block.line})

    def _ask(self, block: Block, question: dict[str, Any]) -> None:
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                [sys.executable, "-m", "tests.docs.interpreter"],
                cwd=self._folder, env=self._environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._interpreter.stdin
        assert self._interpreter.stdout
        self._interpreter.stdin.write(json.dumps(question) + "\n")
        self._interpreter.stdin.flush()
        answer = json.loads(self._interpreter.stdout.readline())
        assert not answer["error"], f"{block.place}: {answer['error']}"
        self._printed = answer["printed"]

    def _output(self, block: Block) -> None:
        assert self._printed is not None, f"{block.place}: no Python block above it"
        wrong = self._ids.mismatch(block.text.splitlines(), self._printed.splitlines())
        assert not wrong, f"{block.place}: {wrong}"
        self._printed = None

    def _log(self, block: Block) -> None:
        assert self._background, f"{block.place}: nothing goes on in the background"
        self._background[-1].await_lines(block.text.splitlines(), self._ids, block.place)

    def _file(self, block: Block) -> None:
        path = self._folder / block.value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._real(block.text), encoding="utf-8")
        check_syntax(path)
        if path.suffix == ".py":
            self._ask(block, {"module": ".".join(Path(block.value).with_suffix("").parts)})

    def _console(self, block: Block) -> None:
        steps = commands(block)
        for at, (command, expected) in enumerate(steps):
            if why_not(command):
                continue
            assert not command.startswith(_NEVER), (
                f"{block.place}: `{command}` is not run by tests: give the reason in tests/docs/not_run.py"
            )
            last = at == len(steps) - 1
            if block.mark == "background" and last:
                self._begin(command, expected, block.place)
            else:
                self._shell(command, expected, block.place)

    def _begin(self, command: str, expected: list[str], place: str) -> None:
        output = self._logs / f"background-{len(self._background)}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {self._real(command)}"], cwd=self._folder, env=self._environment, stdout=file, stderr=file
            )
        self._background.append(Background(command, process, output))
        self._background[-1].await_lines(expected, self._ids, place)

    def _shell(self, command: str, expected: list[str], place: str) -> None:
        told = ""

        def right() -> bool:
            nonlocal told
            with (self._logs / "shell.log").open("w+b") as file:
                process = subprocess.Popen(
                    ["bash", "-c", self._real(command)],
                    cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    start_new_session=True,
                )  # fmt: skip
                if "&" in command:
                    self._groups.append(process.pid)
                code = process.wait(PATIENCE)
                file.seek(0)
                printed = file.read().decode()
            # A page may show a command that fails, if it shows how.
            failed = bool(code) and not any("Error" in line for line in expected)
            failed = failed or ("(error)" in printed and "(error)" not in "".join(expected))
            wrong = self._ids.mismatch(expected, printed.splitlines())
            told = f"{place}: `{command}`, exit code {code}\n{wrong or ''}\nall that was printed:\n{printed}"
            return not failed and wrong is None

        if command.startswith(_LOOKS):
            try:
                wait_until(right, command, PATIENCE)
            except AssertionError:
                raise AssertionError(told) from None
        else:
            assert right(), told

    def end(self) -> None:
        """End what goes on, and see that it ends well."""
        for background in reversed(self._background):
            background.stop()
        if self._interpreter:
            assert self._interpreter.stdin
            self._interpreter.stdin.close()
            assert self._interpreter.wait(PATIENCE) == 0

    def kill(self) -> None:
        """Let nothing outlive the test."""
        for background in self._background:
            background.kill()
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._interpreter:
            self._interpreter.kill()
            self._interpreter.wait(PATIENCE)
            for pipe in (self._interpreter.stdin, self._interpreter.stdout):
                if pipe:
                    pipe.close()


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it has to print."""
    found: list[tuple[str, list[str]]] = []
    lines = iter(block.text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            while command.endswith("\\"):
                command = command.removesuffix("\\") + next(lines).strip()
            # A remark behind a command is for the reader.
            found.append((command.partition("  # ")[0].strip(), []))
        else:
            assert found, f"{block.place}: output before the first command"
            found[-1][1].append(line)
    return found


def check_syntax(path: Path) -> None:
    """A file that no example runs is well-formed at least."""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".py":
            pass
        case ".yml" | ".yaml":
            assert isinstance(yaml.safe_load(text), dict)
        case ".toml":
            tomllib.loads(text)
        case ".service" | ".ini":
            parser = configparser.RawConfigParser(strict=False)
            parser.read_string(text)
            assert parser.sections()
        case ".acl":
            for line in text.splitlines():
                assert re.fullmatch(r"user \w+ on( (>\w+|[~&][\w:*]+|[+-]@?\w+))+", line), line
        case _:
            assert path.name in ("Dockerfile", "bot.env"), f"no check for {path.name}: add one to tests/docs/scenario.py"
