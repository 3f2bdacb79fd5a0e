"""The pytest plugin: there without an import, and nothing to those who do not use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from redisq import RedisQ
from redisq.testing import Sandbox

OpenSandbox = Callable[..., Sandbox]

app = RedisQ("plugin", url="redis://nowhere.invalid")


@app.task
def work(number: int) -> None: ...


def test_the_fixture_opens_a_sandbox(redisq_sandbox: OpenSandbox) -> None:
    box = redisq_sandbox(app)
    work.delay(1)
    box.assert_enqueued(work, args=(1,), count=1)


def test_a_test_that_ends_leaves_nothing(pytester_files: Path) -> None:
    (pytester_files / "test_it.py").write_text(
        """
from redisq import RedisQ

app = RedisQ("bot", url="redis://nowhere.invalid")
ran = []

@app.task
def work(number): ran.append(number)

def test_one(redisq_sandbox):
    box = redisq_sandbox(app, eager=True)
    work.delay(1)
    assert ran == [1]

def test_two():
    assert app.server.url == "redis://nowhere.invalid"
    assert "enqueue" not in vars(app)

def test_three(redisq_sandbox):
    assert redisq_sandbox(app).enqueued() == []
"""
    )
    assert "3 passed" in run_pytest(pytester_files)


def test_those_who_do_not_use_it_do_not_pay_for_it(pytester_files: Path) -> None:
    (pytester_files / "test_it.py").write_text(
        """
import sys

def test_redisq_was_not_imported():
    assert "redisq_contrib.pytest.plugin" in sys.modules
    assert not {"redisq", "redis", "fakeredis"} & set(sys.modules)
"""
    )
    assert "1 passed" in run_pytest(pytester_files)


def test_it_is_registered_under_the_name_of_the_project() -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert setup["options.entry_points"]["pytest11"].strip() == "redisq = redisq_contrib.pytest.plugin"


@pytest.fixture
def pytester_files(tmp_path: Path) -> Path:
    """A folder of a user's own, with settings of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return tmp_path


def run_pytest(folder: Path) -> str:
    command = (sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", folder)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
