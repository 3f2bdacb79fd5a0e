"""A cell of a notebook that is run again replaces its tasks; anywhere else two tasks of one name are a mistake."""

from __future__ import annotations

import code
import linecache
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from redisq import RedisQ
from redisq.errors import ConfigError

CELL = """
@app.task(max_retries={number}, limits=["bot: {number}/s"])
def answer(chat):
    return {number}
"""


def namespace() -> dict[str, Any]:
    return {"__name__": "__main__", "app": RedisQ("notebook", url="redis://127.0.0.1:1")}


def cell(number: int, names: dict[str, Any], file: str = "/tmp/ipykernel_4242/{}.py", text: str = CELL) -> None:
    exec(compile(text.format(number=number), file.format(number), "exec"), names)


@pytest.mark.parametrize("file", ["/tmp/ipykernel_4242/{}.py", "<ipython-input-{}-0a1b2c>", "<stdin>"])
def test_cell_that_is_run_twice_replaces_its_task(file: str) -> None:
    names = namespace()
    for number in (1, 2, 3):
        cell(number, names, file)
        task = names["app"].tasks["answer"]
        assert task is names["answer"]
        assert (task(7), task.definition.max_retries) == (number, number)
    assert list(names["app"].limits_of("notebook")) == ["bot"], "another rate of the same limit is no clash, either"


def test_interactive_console_replaces_a_task() -> None:
    names = namespace()
    console = code.InteractiveConsole(names)
    for number in (1, 2):
        for line in CELL.format(number=number).strip().splitlines():
            console.push(line)
        console.push("")
    assert names["app"].tasks["answer"](7) == 2


def test_a_loop_in_one_cell_makes_two_tasks_of_one_name() -> None:
    text = "for _ in range(2):\n    @app.task\n    def answer(chat): pass\n"
    with pytest.raises(ConfigError, match="two tasks are called 'answer'"):
        cell(1, namespace(), text=text)


def module(name: str, file: Path, names: dict[str, Any]) -> None:
    file.write_text(CELL.format(number=1))
    made = ModuleType(name)
    made.__dict__["app"] = names["app"]
    exec(compile(file.read_text(), str(file), "exec"), made.__dict__)


@pytest.mark.parametrize(
    "second",
    [
        lambda folder, names: module("other", folder / "other.py", names),
        lambda folder, names: module("__main__", folder / "bot.py", names),
        lambda folder, names: cell(2, names),
    ],
    ids=["another module", "the same script", "a cell"],
)
def test_task_of_a_file_is_never_replaced(second: Callable[[Path, dict[str, Any]], None], tmp_path: Path) -> None:
    names = namespace()
    module("__main__", tmp_path / "bot.py", names)
    with pytest.raises(ConfigError, match="two tasks are called 'answer'"):
        second(tmp_path, names)


def test_file_does_not_replace_a_task_of_a_cell(tmp_path: Path) -> None:
    names = namespace()
    cell(1, names)
    with pytest.raises(ConfigError, match=r"two tasks are called 'answer': __main__\.answer and bot\.answer"):
        module("bot", tmp_path / "bot.py", names)
    linecache.clearcache()
