"""Where an error was raised, without a value of the program."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_stack_is_kept_with_dead_letters_only() -> None:
    def sent(op: str) -> object:
        return settle(QueueKeys("q"), [Settlement(op, "id", 1, 5, "failed", "no", "a.py:1 in f")]).args[-1]

    assert sent("dead") == "no\x1fa.py:1 in f"
    assert sent("retry") == "no"
