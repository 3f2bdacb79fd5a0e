"""What the log says of a failed run, and who sets logging up."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from redisq import RedisQ
from redisq.testing import sandbox
from tests.integration.processes import WorkerProcess

SECRET = "hunter2-in-the-payload"


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
    (debug,) = [record for record in caplog.records if "raised ExceptionGroup in:" in record.getMessage()]
    assert "parses" in debug.getMessage()
    assert "raw_decode" in debug.getMessage()
    assert SECRET not in debug.getMessage() + warning.getMessage()


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
