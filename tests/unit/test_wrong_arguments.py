"""A message whose arguments fit another version of the handler is put aside for a worker that has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from itertools import product
from typing import Any

import pytest

from redisq import RedisQ
from redisq.app.signature import Parameters
from redisq.errors import ArgumentsError, ConfigError
from redisq.testing import sandbox

ran: list[Any] = []


class OldMood(Enum):
    GOOD = "good"


class NewMood(Enum):
    GOOD = "good"
    TIRED = "tired"


async def old_async(chat_id: int) -> None:
    ran.append(chat_id)


async def new_async(chat_id: int, text: str) -> None:
    ran.append((chat_id, text))


def old_plain(chat_id: int) -> None:
    ran.append(chat_id)


def new_plain(chat_id: int, *, text: str = "") -> None:
    ran.append((chat_id, text))


def old_enum(mood: OldMood) -> None:
    ran.append(mood)


def new_enum(mood: NewMood) -> None:
    ran.append(mood)


def app_with(handler: Callable[..., Any], pool: Any = None) -> RedisQ:
    app = RedisQ("bot")
    app.task(name="answer", max_retries=0, pool=pool)(handler)
    return app


@pytest.mark.parametrize("pool", [None, "process"])
@pytest.mark.parametrize(
    ("old", "new", "args", "kwargs", "comes_to"),
    [
        (old_async, new_async, (42, "hi"), {}, (42, "hi")),
        (old_async, new_async, (), {"chat_id": 42, "text": "hi"}, (42, "hi")),
        (old_plain, new_plain, (42,), {"text": "hi"}, (42, "hi")),
        (old_enum, new_enum, ("tired",), {}, NewMood.TIRED),
    ],
)
def test_during_a_rolling_deploy_the_new_worker_runs_what_the_old_one_puts_aside(
    old: Callable[..., Any], new: Callable[..., Any], args: Any, kwargs: Any, comes_to: Any, pool: Any
) -> None:
    ran.clear()
    with sandbox(app_with(old, pool)) as box:
        box.app.send("answer", args, kwargs)
        assert tuple(box.drain()) == (0, 0, 0)
        (call,) = box.enqueued()
        assert (call.reason, call.attempt) == ("wrong_arguments", 1)
        assert "answer" in call.error
        # The worker of the new release: the same app with the new handler.
        box.app._own["answer"] = app_with(new).tasks["answer"]
        assert box.drain(delayed=True).done == 1
    assert ran == [comes_to]


def test_what_fits_no_worker_is_a_dead_letter_in_the_end() -> None:
    with sandbox(app_with(old_async)) as box:
        box.app.send("answer", (42, "hi"))
        assert box.drain(delayed=True).dead == 1
        (letter,) = box.dead()
        assert (letter.reason, letter.attempt) == ("wrong_arguments", 1)
        assert "too many positional arguments" in letter.error


class NoText:
    def __repr__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("default", ["hunter2", NoText()], ids=["a secret", "an object without text"])
def test_an_error_does_not_show_defaults(default: Any) -> None:
    def sign(chat_id: int, key: Any = default) -> None: ...

    with sandbox(app_with(sign)) as box:
        with pytest.raises(ArgumentsError, match=r"^task answer\(chat_id: .*int.*, key: .*Any.* = \.\.\.\).*: too many positional"):
            box.app.tasks["answer"].delay(1, 2, 3)
        box.app.send("answer", (1, 2, 3))
        assert tuple(box.drain()) == (0, 0, 0)
        (call,) = box.enqueued()
        assert call.reason == "wrong_arguments"
        assert "hunter2" not in call.error


def test_a_handler_whose_parameters_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min.*: call it in a function of your own"):
        RedisQ("bot").task(min)


def one(a: Any, b: Any = 1) -> None: ...
def two(a: Any, *, c: Any, d: Any = 1) -> None: ...
def three(a: Any, /, b: Any = 1) -> None: ...
def four(*a: Any, b: Any, **c: Any) -> None: ...
def five(a: Any = 1, *, c: Any = 2, **d: Any) -> None: ...


@pytest.mark.parametrize("handler", [one, two, three, four, five])
def test_the_quick_check_accepts_what_a_call_accepts_and_nothing_else(handler: Callable[..., None]) -> None:
    signature = inspect.signature(handler)
    parameters = Parameters(signature)
    for count, *given in product(range(4), *[[False, True]] * 5):
        args = (0,) * count
        kwargs = {name: 0 for name, there in zip("abcde", given, strict=True) if there}
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            with pytest.raises(ArgumentsError):
                parameters.check("task", args, kwargs)
        else:
            parameters.check("task", args, kwargs)
