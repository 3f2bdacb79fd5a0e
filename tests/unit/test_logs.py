"""What the log shows: whose lines, from which level on, how much of them, and no secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from redisq import RedisQ
from redisq.logs import MAX_PART, LogSetup, get_logger, own_packages, present_setup, set_up
from redisq.worker.worker import Worker

TOKEN = "123456789:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"
OWN = frozenset(("log_test_app",))
NAMES = ("redisq", "redisq.worker", "log_test_app", "log_test_app.chat", "log_test_lib")


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """A process without any logging set up; returns what it printed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in NAMES}
    root.handlers, root.level = [], logging.WARNING
    yield lambda: capsys.readouterr().err
    root.handlers = before[0]
    root.setLevel(before[1])
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("DEBUG", {"log_test_app.chat": "DIWE", "redisq.worker": "DIWE", "log_test_lib": "WE"}),
        ("INFO", {"log_test_app.chat": "IWE", "redisq.worker": "IWE", "log_test_lib": "WE"}),
        ("error", {"log_test_app.chat": "E", "redisq.worker": "E", "log_test_lib": "E"}),
    ],
)
def test_only_own_loggers_are_shown_below_warning(stderr: Callable[[], str], level: str, shown: dict[str, str]) -> None:
    set_up(LogSetup("%(name)s %(levelname).1s", level, OWN))
    for name in shown:
        for each in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(each, "x")
    assert stderr().splitlines() == [f"{name} {letter}" for name, letters in shown.items() for letter in letters]


def test_level_that_was_set_before_stays(stderr: Callable[[], str]) -> None:
    logging.getLogger("log_test_lib").setLevel(logging.INFO)
    logging.getLogger("log_test_app.chat").setLevel(logging.ERROR)
    set_up(LogSetup("%(name)s %(message)s", "INFO", OWN))
    logging.getLogger("log_test_lib").info("GET https://api.telegram.org/bot%s/getMe", TOKEN)
    logging.getLogger("log_test_app.chat").info("not shown")
    assert stderr() == "log_test_lib GET https://api.telegram.org/bot***/getMe\n"


def test_line_of_another_package_and_any_traceback_have_no_secret_and_are_bounded(stderr: Callable[[], str]) -> None:
    set_up(LogSetup("%(message)s", "INFO", OWN))
    for name in ("log_test_lib", "log_test_app"):
        logging.getLogger(name).warning("w", exc_info=ValueError(f"token={TOKEN} " + "x" * 10**6))
    logging.getLogger("log_test_lib").warning(f"{TOKEN} {'y ' * 10**6}")  # noqa: G004 - as libraries do
    text = stderr()
    lines = text.splitlines()
    assert TOKEN[:15] not in text
    assert max(map(len, lines)) <= MAX_PART + 2


def test_records_of_redisq_are_safe_whoever_handles_them(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("log_test_app.worker")
    log.warning("%s of %d: %.1f %s", f"https://x/bot{TOKEN}/y" + "z" * 10**6, 3, 0.5, OSError(f"password={TOKEN}"))
    log.error("failed", exc_info=OSError(f"password={TOKEN}"))
    first, second = caplog.records
    assert first.msg == "%s of %d: %.1f %s", "error trackers group by the template"
    assert first.getMessage().endswith("… of 3: 0.5 password=***")
    assert len(first.getMessage()) < MAX_PART + 100
    assert second.exc_text
    assert second.exc_text.endswith("OSError: password=***")


def test_a_child_process_is_set_up_like_its_parent_unless_the_app_did_it(stderr: Callable[[], str]) -> None:
    assert present_setup() is None
    logging.getLogger().addHandler(logging.StreamHandler())
    assert present_setup() is None
    set_up(setup := LogSetup("%(message)s", "INFO", OWN))
    assert present_setup() == setup


def test_own_loggers_are_those_of_modules_beside_the_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, file: Path) -> None:
        made = ModuleType(name)
        made.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, made)

    project, installed = tmp_path / "project", tmp_path / "project" / ".venv" / "lib" / "site-packages"
    module("own_bot", project / "own_bot" / "__init__.py")
    module("own_helper", project / "own_helper.py")
    module("other_lib", installed / "other_lib" / "__init__.py")
    module("installed_bot", installed / "installed_bot.py")
    module("elsewhere", tmp_path / "elsewhere.py")
    own = own_packages(["own_bot.tasks", "installed_bot"])
    assert {"own_bot", "own_helper", "installed_bot"} <= own
    assert not own & {"other_lib", "elsewhere", "redisq", "logging", "pytest"}


def test_the_line_of_a_workers_start_names_some_of_many_tasks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = RedisQ("log_test_app", url="redis://127.0.0.1:1")
    for number in range(500):
        app.task(name=f"task_{number:03}")(lambda: None)
    worker: Any = Worker(app, burst=True)
    worker.log.info("%s", worker.tasks_in_words)
    assert caplog.messages[-1].endswith("task_019 and 480 more")
