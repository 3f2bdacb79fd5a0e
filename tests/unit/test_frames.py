"""Where an error was raised, without a value of the program."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest

import redisq
from redisq.broker.commands import Settlement, settle
from redisq.broker.keys import QueueKeys
from redisq.worker.frames import origin, stack


def fails(secret: str) -> None:
    raise ValueError(f"{secret} in the text")


def deep(levels: int, secret: str) -> None:
    if levels:
        deep(levels - 1, secret)
    else:
        fails(secret)


def raised(levels: int = 0) -> Exception:
    try:
        deep(levels, "hunter2")
    except ValueError as error:
        return error
    raise AssertionError


def test_stack_has_files_lines_and_functions_and_no_values() -> None:
    lines = stack(raised()).splitlines()
    assert [line.rpartition(" in ")[2] for line in lines] == ["raised", "deep", "fails"]
    assert all(line.startswith(f"{__file__}:") for line in lines)
    assert "hunter2" not in stack(raised())
    assert origin(raised()).endswith(" in fails)")


def test_stack_has_the_innermost_frames_and_bounded_length() -> None:
    lines = stack(raised(500)).splitlines()
    assert len(lines) <= 20
    assert lines[-1].endswith(" in fails")
    code: dict[str, Any] = {}
    exec(compile(f"def f{'x' * 3000}(): raise OSError", "file\nname\x1f.py", "exec"), code)
    name = next(name for name in code if name.startswith("fx"))
    with pytest.raises(OSError, match=r"^$") as caught:
        code[name]()
    assert len(stack(caught.value)) <= 2000
    assert "\x1f" not in stack(caught.value)


def test_stack_of_a_group_goes_on_in_its_first_error() -> None:
    lines = stack(ExceptionGroup("several", [raised(), OSError()])).splitlines()
    assert [line.rpartition(" in ")[2] for line in lines][-2:] == ["deep", "fails"]
    assert stack(ValueError("never raised")) == ""


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (("redisq/worker/executor.py", "python/asyncio/runners.py", "redisq/app/calling.py", "/app/bot.py"), ["/app/bot.py"]),
        (("redisq/app/calling.py", "python/functools.py", "site-packages/bot/tasks.py"), ["site-packages/bot/tasks.py"]),
        (("redisq/app/calling.py", "/app/bot.py", "redisq/app/task.py"), ["/app/bot.py", "redisq/app/task.py"]),
        (("redisq/app/calling.py", "python/json.py"), ["redisq/app/calling.py", "python/json.py"]),
    ],
)
def test_stack_begins_with_the_first_frame_of_the_app(files: tuple[str, ...], shown: list[str]) -> None:
    folders = {
        "redisq": str(Path(redisq.__file__).parent),
        "python": sysconfig.get_paths()["stdlib"],
        "site-packages": sysconfig.get_paths()["purelib"],
    }

    def placed(file: str) -> str:
        first, _, rest = file.partition("/")
        return f"{folders[first]}/{rest}" if first in folders else file

    code: dict[str, Any] = {}
    exec(compile("def call(): raise ValueError('no')", placed(files[-1]), "exec"), code)
    for file in reversed(files[:-1]):
        outer: dict[str, Any] = {"inner": code["call"]}
        exec(compile("def call(): inner()", placed(file), "exec"), outer)
        code = outer
    with pytest.raises(ValueError, match="no") as caught:
        code["call"]()
    assert caught.value.__traceback__ is not None
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # without this test's own frame
    assert stack(error).splitlines() == [f"{placed(file)}:1 in call" for file in shown]


def test_stack_is_kept_with_dead_letters_only() -> None:
    def sent(op: str) -> object:
        return settle(QueueKeys("q"), [Settlement(op, "id", 1, 5, "failed", "no", "a.py:1 in f")]).args[-1]

    assert sent("dead") == "no\x1fa.py:1 in f"
    assert sent("retry") == "no"
