"""A message whose arguments fit another version of the handler is put aside for a worker that has it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from redisq import RedisQ
from redisq.app.signature import Parameters
from redisq.errors import ArgumentsError, ConfigError, EncodeError
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


@dataclass
class Address:
    zip: int
    mood: OldMood = OldMood.GOOD


class Where(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    zip: int
    spots: dict[str, Spot] = {}


class Spot(pydantic.BaseModel):
    floor: int = pydantic.Field(alias="Floor")


class Struct(msgspec.Struct):
    zip: int
    inner: dict[str, Struct] = {}


@attrs.define
class Attrs:
    mood: OldMood


class Row(NamedTuple):
    name: str
    mood: OldMood


class Keys(TypedDict):
    moods: list[OldMood]


HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (list[OldMood], ["good", "good", HIDDEN], "value[2] does not fit its annotation: ValueError"),
        (tuple[int, OldMood], [1, HIDDEN], "value[1] does not fit its annotation: ValueError"),
        (tuple[int, OldMood], [1], "value does not fit its annotation: want a tuple of 2, not of 1"),
        (dict[str, OldMood], {HIDDEN: HIDDEN}, "value[...] does not fit its annotation: ValueError"),
        (list[OldMood], HIDDEN, "value does not fit its annotation: want a list, not str"),
        (
            list[Address],
            [{"zip": 1}, {"zip": 2, "mood": HIDDEN}],
            "value[1].mood does not fit its annotation: ValueError",
        ),
        (
            Address | None,
            {"mood": "good", HIDDEN: 1},
            "value does not fit its annotation: want the fields of Address: zip missing, 1 unknown",
        ),
        (dict[str, Attrs], {HIDDEN: {"mood": HIDDEN}}, "value[...].mood does not fit its annotation: ValueError"),
        (list[Row], [["a", HIDDEN]], "value[0].mood does not fit its annotation: ValueError"),
        (list[Row], [[HIDDEN]], "value[0] does not fit its annotation: want the fields name, mood, found 1"),
        (Keys, {"moods": ["good", HIDDEN]}, "value.moods[1] does not fit its annotation: ValueError"),
        (Where, {"zip": HIDDEN}, "value.zip does not fit its annotation: int_parsing"),
        (Where, {}, "value.zip does not fit its annotation: missing"),
        (Where, {"zip": 1, HIDDEN: 2}, "value[...] does not fit its annotation: extra_forbidden"),
        (
            list[Where],
            [{"zip": 1, "spots": {HIDDEN: {"Floor": HIDDEN}}}],
            "value[0].spots[...].Floor does not fit its annotation: int_parsing",
        ),
        (Where, {"zip": HIDDEN, "spots": 1}, "value.zip does not fit its annotation: int_parsing and 1 more"),
        (Struct, {"zip": HIDDEN}, "value.zip does not fit its annotation: ValidationError"),
        (Struct, {}, "value.zip does not fit its annotation: missing"),
        (
            list[Struct],
            [{"zip": 1, "inner": {HIDDEN: {"zip": HIDDEN}}}],
            "value[0].inner[...].zip does not fit its annotation: ValidationError",
        ),
        (OldMood | Address, HIDDEN, "value does not fit its annotation: it fits none of the classes"),
    ],
)
def test_error_names_the_place_in_the_argument_and_no_value(
    hint: Any, value: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(value: Any) -> None: ...

    answer.__annotations__ = {"value": hint}
    with sandbox(app_with(answer)) as box:
        with pytest.raises(EncodeError, match=f"^task answer: argument {re.escape(says)}"):
            box.app.tasks["answer"].delay(value)
        box.app.send("answer", (value,))
        assert tuple(box.drain()) == (0, 0, 0)
        (call,) = box.enqueued()
        assert call.reason == "wrong_arguments"
        assert call.error.endswith(f"task answer: argument {says}")
        assert HIDDEN not in call.error
    assert says in caplog.text
    assert HIDDEN not in caplog.text


def test_place_of_one_of_many_positional_arguments_is_named_and_a_long_place_is_cut() -> None:
    def answer(*values: Any) -> None: ...

    deep: Any = OldMood
    value: Any = "no"
    for _ in range(20):
        deep, value = list[deep], [value]
    answer.__annotations__ = {"values": deep}
    with sandbox(app_with(answer)) as box, pytest.raises(EncodeError) as caught:
        box.app.tasks["answer"].delay([], value)
    place = "values[1]" + "[0]" * 5 + "…" + "[0]" * 3
    assert str(caught.value) == f"task answer: argument {place} does not fit its annotation: ValueError"


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


def gives_session(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, session="open", **kwargs)

    return wrapper


def says_what_it_gives(function: Callable[..., Any]) -> Callable[..., Any]:
    wrapper: Any = gives_session(function)
    signature = inspect.signature(function)
    wrapper.__signature__ = signature.replace(parameters=[each for name, each in signature.parameters.items() if name != "session"])
    return wrapper  # type: ignore[no-any-return]


def kept(user_id: int, *, session: str) -> None:
    ran.append((user_id, session))


def kept_by_default(user_id: int, session: str = "none") -> None:
    ran.append((user_id, session))


def made(mood: NewMood, *, session: str) -> None:
    ran.append((mood, session))


HINT = "; if a decorator passes it, give the parameter a default, or set __signature__ on the decorator's wrapper"


@pytest.mark.parametrize("wrap", [lambda handler: handler, functools.partial, lambda handler: staticmethod(handler).__func__])
def test_a_call_without_what_a_decorator_gives_is_refused_with_a_hint(wrap: Callable[[Any], Any]) -> None:
    with sandbox(RedisQ("bot")) as box:
        task = box.app.task(name="keep")(wrap(gives_session(kept)))
        for call in (lambda: task.delay(42), lambda: task.delay_many([(42,)]), lambda: task.delay(user_id=42)):
            with pytest.raises(ArgumentsError) as refused:
                call()
            assert str(refused.value).endswith(f"missing a required argument: 'session'{HINT}")


@pytest.mark.parametrize(
    ("handler", "args", "kwargs"),
    [
        (gives_session(kept), (1, 2), {}),
        (gives_session(kept), (1,), {"sesion": 1}),
        (kept, (1,), {}),
        (says_what_it_gives(kept), (), {}),
        (says_what_it_gives(kept), (1,), {"session": "mine"}),
    ],
)
def test_other_wrong_arguments_have_no_hint_about_decorators(handler: Any, args: Any, kwargs: Any) -> None:
    with sandbox(RedisQ("bot")) as box, pytest.raises(ArgumentsError) as refused:
        box.app.task(name="keep")(handler).delay(*args, **kwargs)
    assert "decorator" not in str(refused.value)


@pytest.mark.parametrize(
    ("handler", "argument"),
    [(says_what_it_gives(kept), 42), (gives_session(kept_by_default), 42), (says_what_it_gives(made), NewMood.TIRED)],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_decorator_gives_a_parameter_that_callers_do_not(handler: Any, argument: Any, named: bool) -> None:
    ran.clear()
    with sandbox(RedisQ("bot")) as box:
        task = box.app.task(handler)
        if named:
            task.delay(**{next(iter(task.signature.parameters)): argument})
        else:
            task.delay(argument)
        assert box.drain().done == 1
    assert ran == [(argument, "open")]
