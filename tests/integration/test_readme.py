"""What the README says to type works: the commands are those that are tested, the code runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import redis

from tests.integration.processes import WorkerProcess, wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def test_there_are_exactly_two_set_up_commands() -> None:
    assert [command for command in commands() if "install" in command] == [
        "pip install '.[embedded]' && redisq demo",
        "pip install '.[test]' && pytest",
    ]
    assert README.count("pip install") == 2, "nor are there others between the lines"
    assert "pip install '.[test]' && pytest" in (ROOT / ".ci" / "run").read_text().replace(" -q ", " ").splitlines()


def test_the_quickstart_runs(redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line]) == 5
    (tmp_path / "bot.py").write_text(code)
    worker_command, send_command = (command for command in commands() if command.startswith("REDISQ_URL="))
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    assert worker_command == "REDISQ_URL=redis://localhost:6379 redisq worker bot:app"
    worker = WorkerProcess(redis_url, tmp_path, app="bot:app", **environment)
    try:
        worker.ready()
        _, *arguments = shlex.split(send_command.replace("redisq ", f"{sys.executable} -m redisq ", 1))
        subprocess.run(arguments, check=True, cwd=tmp_path, env={**os.environ, "REDISQ_URL": redis_url, "PYTHONPATH": str(ROOT)})
        worker.wait_for_log("hi to you, 42")
        wait_until(lambda: raw.hget("chat_api:stats", "processed_requests") == b"1", "settled")
        assert worker.terminate() == 0
    finally:
        worker.kill()
    for line in re.findall(r"^2026-\S+ \S+ - (.*)$", README, re.MULTILINE):
        assert line in worker.text()


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_picture_is_of_the_demo_and_of_no_machine() -> None:
    picture = (ROOT / "docs" / "pictures" / "demo.svg").read_text()
    assert "redisq&#160;demo" in picture
    assert not re.search(r"/tmp|/home|/root|localhost|@font-face|url\(http", picture)
