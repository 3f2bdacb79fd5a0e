"""The front door is a short list: what it has is decided here, and each name says what it is."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import redisq
from redisq import errors, middleware, testing

PUBLIC = [getattr(redisq, name) for name in redisq.__all__ if name != "__version__"]
PUBLIC += [getattr(testing, name) for name in testing.__all__]
PUBLIC += [getattr(middleware, name) for name in middleware.__all__]


def test_the_public_names() -> None:
    assert testing.__all__ == ["Call", "Clock", "Drained", "FakeServer", "Sandbox", "check_leaks", "sandbox"]
    middleware_names = ["CallRefused", "Delivery", "End", "LogJob", "LogRuns", "Middleware", "OutgoingCall", "Progress"]
    assert middleware.__all__ == middleware_names
    assert redisq.__all__ == [
        "Context", "Job", "Middleware", "RateLimited", "RedisQ", "Reject", "Retry",
        "Task", "Worker", "__version__", "current_context", "task",
    ]  # fmt: skip


def test_every_public_name_is_there() -> None:
    assert all(hasattr(redisq, name) for name in redisq.__all__)


def test_the_front_door_hides_nothing_but_modules() -> None:
    others = {name for name in vars(redisq) if not name.startswith("_")} - set(redisq.__all__)
    assert all(inspect.ismodule(getattr(redisq, name)) for name in others)


def documented(kind: type) -> list[tuple[str, object]]:
    """The public methods and properties of a class."""
    return [(name, member) for name, member in inspect.getmembers(kind) if not name.startswith("_")]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: getattr(public, "__name__", "task"))
def test_every_public_name_and_each_of_its_methods_has_a_docstring(public: Any) -> None:
    kind = public if inspect.isclass(public) else type(public)
    assert inspect.getdoc(public)
    without = [
        member_name
        for member_name, member in documented(kind)
        if (inspect.isroutine(member) or isinstance(member, property)) and not inspect.getdoc(member)
    ]
    assert without == []


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree_and_has_a_docstring_of_its_own(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.RedisqError)
    assert error.__doc__
    assert errors.__doc__
    assert name in errors.__doc__
