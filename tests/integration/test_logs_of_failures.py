"""What the log says of a failed run, and who sets logging up."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from redisq import RedisQ
from redisq.cli.main import main
from redisq.states import State
from redisq.testing import sandbox
from tests.integration.processes import ROOT, WorkerProcess, wait_until

SECRET = "hunter2-in-the-payload"


#: Where the handlers below call `fail`.
LINES = {"in_the_loop": 10, "in_a_thread": 13, "in_a_process": 16}


def own_code(text: str) -> None:
    json.loads(text)


def test_the_last_frame_of_the_apps_own_code_is_in_the_warning_and_the_stack_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = RedisQ("bot")

    @app.task
    async def parses(text: str) -> None:
        try:
            own_code(text)
        except ValueError as error:
            raise ExceptionGroup("outer", [error]) from None

    with sandbox(app) as box:
        parses.delay(SECRET)
        box.drain()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{__file__}:" in warning.getMessage()
    assert "in own_code)" in warning.getMessage()
    (debug,) = [record for record in caplog.records if "] failed in:" in record.getMessage()]
    assert "parses" in debug.getMessage()
    assert "raw_decode" in debug.getMessage()
    assert SECRET not in debug.getMessage() + warning.getMessage()


class BreaksWhenAsked(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("a class of the app")


class Breaks(Exception, metaclass=BreaksWhenAsked):
    pass


@pytest.mark.parametrize(("retries", "then"), [(1, "it is tried again"), (0, "it is a dead letter")])
def test_log_says_what_becomes_of_a_run_whose_end_could_not_be_looked_at(
    retries: int, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = RedisQ("bot")

    @app.task(max_retries=retries, dont_retry_for=(Breaks,))
    async def fails() -> None:
        raise ValueError("no")

    with sandbox(app) as box:
        fails.delay()
        drained = box.drain()
    assert (drained.retried, drained.dead) == (retries, 1 - retries)
    assert f"has ended, but the look at its end failed; {then}: RuntimeError: a class of the app" in caplog.text


@pytest.mark.parametrize(
    ("set_up", "options", "shown"),
    [
        ("", (), " - INFO - Started app queue processor"),
        ("", ("--no-log-setup",), ""),
        ("logging.basicConfig(level='INFO', format='OWN %(message)s')", (), "OWN Started app queue processor"),
    ],
)
def test_the_apps_own_logging_wins(set_up: str, options: tuple[str, ...], shown: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(
        f"import logging\nfrom redisq import RedisQ\n{set_up}\napp = RedisQ('app')\n@app.task\ndef f(): pass\n"
    )
    worker = WorkerProcess(redis_url, tmp_path, "-b", *options, app="logs:app", folder_to_run_in=tmp_path)
    assert worker.wait() == 0
    assert shown in worker.text()
    assert bool(worker.text()) == bool(shown)
    assert ("OWN" in worker.text()) == ("OWN" in shown)


STACKS = """
from redisq import RedisQ

app = RedisQ("app")

def fail(secret):
    raise ValueError("no")

@app.task(max_retries=1, retry_backoff=0.01)
async def in_the_loop(secret): fail(secret)

@app.task(max_retries=1, retry_backoff=0.01)
def in_a_thread(secret): fail(secret)

@app.task(max_retries=1, retry_backoff=0.01, pool="process")
def in_a_process(secret): fail(secret)

@app.task(ack="early")
async def once(secret): fail(secret)
"""


@pytest.mark.parametrize("task", ["in_the_loop", "in_a_thread", "in_a_process"])
def test_dead_letter_keeps_a_stack_without_values_and_the_log_has_it_at_debug(task: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "stacks.py").write_text(STACKS)
    app = RedisQ("app", url=redis_url)
    job = app.send(task, (SECRET,))
    options = ("--log-level", "debug")
    worker = WorkerProcess(redis_url, tmp_path, *options, app="stacks:app", folder_to_run_in=tmp_path, PYTHONPATH=str(ROOT))
    try:
        wait_until(lambda: job.state() is State.DEAD, "a dead letter, after two attempts")
        assert worker.terminate() == 0
    finally:
        worker.kill()
    app.close()
    frames = [f"{tmp_path / 'stacks.py'}:{line} in {name}" for line, name in ((LINES[task], task), (7, "fail"))]
    assert worker.text().count("\n".join(["failed in:", *frames])) == 2, "of both attempts"
    shown = CliRunner().invoke(main, ["dead", "show", job.id, "--url", redis_url]).output
    assert [line.strip() for line in shown.splitlines()[-3:]] == ["raised in, the innermost last:", *frames]
    fields = json.loads(CliRunner().invoke(main, ["dead", "show", job.id, "--json", "--url", redis_url]).output)
    assert fields["stack"] == frames
    assert fields["error"] == "ValueError: no"
    listed = CliRunner().invoke(main, ["dead", "list", "--url", redis_url]).output
    assert "stacks.py" not in listed
    assert SECRET not in worker.text() + shown


@pytest.mark.parametrize("task", ["in_the_loop", "in_a_thread", "in_a_process"])
def test_log_of_a_failed_attempt_reads_the_same_wherever_the_handler_runs(task: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "stacks.py").write_text(STACKS)
    app = RedisQ("app", url=redis_url)
    job = app.send(task, (SECRET,))
    worker = WorkerProcess(redis_url, tmp_path, app="stacks:app", folder_to_run_in=tmp_path, PYTHONPATH=str(ROOT))
    try:
        wait_until(lambda: job.state() is State.DEAD, "a dead letter, after two attempts")
        assert worker.terminate() == 0
    finally:
        worker.kill()
    app.close()
    named = re.escape(f"Task {task}[{job.id}]")
    where = re.escape(f"ValueError: no (at {tmp_path / 'stacks.py'}:7 in fail)")
    assert re.search(rf"WARNING - {named} failed, attempt 1 of 2, again in 0\.0 s: {where}", worker.text())
    assert re.search(rf"ERROR - {named} failed, attempt 2 of 2, not tried again: {where}", worker.text())


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("os._exit(3)", "WARNING - Task f[{id}] ended its process, again in "),
        ("os._exit(3)", "ERROR - Task f[{id}] ended its process, not tried again: exit code 3"),
        ("return {1}", "ERROR - Task f[{id}] is done, its result is not kept: "),
    ],
)
def test_log_says_in_words_how_a_run_in_a_process_ended(body: str, line: str, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "apart.py").write_text(
        "import os\nfrom redisq import RedisQ\napp = RedisQ('app', max_deliveries=2)\n"
        f"@app.task(pool='process', result_ttl=60)\ndef f():\n    {body}\n"
    )
    app = RedisQ("app", url=redis_url)
    job = app.send("f")
    worker = WorkerProcess(redis_url, tmp_path, app="apart:app", folder_to_run_in=tmp_path, PYTHONPATH=str(ROOT))
    try:
        wait_until(lambda: line.format(id=job.id) in worker.text(), "the line", 60)
        assert worker.terminate() == 0
    finally:
        worker.kill()
    app.close()


def test_failure_of_a_task_that_was_acknowledged_first_shows_its_stack_too(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "stacks.py").write_text(STACKS)
    app = RedisQ("app", url=redis_url)
    app.send("once", (SECRET,))
    app.close()
    options = ("-b", "--log-level", "debug")
    worker = WorkerProcess(redis_url, tmp_path, *options, app="stacks:app", folder_to_run_in=tmp_path, PYTHONPATH=str(ROOT))
    assert worker.wait() == 0
    assert f"{tmp_path / 'stacks.py'}:7 in fail" in worker.text()
    assert "failed in:" in worker.text()
