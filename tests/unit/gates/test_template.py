"""Names made of arguments."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.errors import ArgumentsError, ConfigError
from redisq.gates.template import compile_argument, compile_name, encode_name


@dataclass
class Chat:
    id: int | None
    _secret: str = "s"


@dataclass
class Update:
    chat: Chat | None


class Plain:
    pass


class Colour(Enum):
    RED = "red"


def handler(chat_id: Any, text: str = "hi", *more: Any, group: Any = None, **rest: Any) -> None: ...


def name(source: str | Callable[..., Any], *args: Any, of: Callable[..., Any] = handler, **kwargs: Any) -> str | None:
    return compile_name(source, inspect.signature(of), "task greet: key")(args, kwargs)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{chat_id}", "42"),
        ("{text}", "hi"),
        ("{group}", "g"),
        ("{other}", "7"),
        ("chat-{chat_id}-{text}", "chat-42-hi"),
        ("all", "all"),
        ("a{{b}}", "a%7Bb%7D"),
    ],
)
def test_a_template_names_parameters_with_their_defaults(template: str, expected: str) -> None:
    assert name(template, 42, group="g", other=7) == expected


def test_an_argument_may_come_by_place_or_by_name() -> None:
    assert name("{chat_id}", 42) == name("{chat_id}", chat_id=42) == name("{chat_id}", "42") == "42"
    assert name("{text}", 42, "x") == name("{text}", 42, text="x") == "x"


def test_extra_arguments_are_reached_through_their_own_parameter() -> None:
    assert name("{more[1]}", 42, "x", "a", "b") == "b"
    assert name("{rest[thread]}", 42, thread=5, group=1) == "5"


def test_a_positional_only_parameter_does_not_take_a_named_one_of_its_name() -> None:
    def other(chat_id: int = 1, /, **rest: Any) -> None: ...

    assert name("{chat_id}", chat_id=9, of=other) == "1"
    assert name("{chat_id}", 9, of=other) == "9"


def test_attributes_and_items_are_followed() -> None:
    assert name("{chat_id.chat.id}", Update(Chat(7))) == "7"
    assert name("{chat_id[chat][0]}", {"chat": [7]}) == "7"


def test_a_dataclass_that_comes_as_a_mapping_gives_the_same_name() -> None:
    assert name("{chat_id.chat.id}", {"chat": {"id": 7}}) == "7"


@pytest.mark.parametrize("value", [None, "", Update(None)])
def test_none_on_the_way_and_empty_text_are_no_name(value: Any) -> None:
    assert name("{chat_id.chat.id}" if isinstance(value, Update) else "{chat_id}", value) is None
    assert name("x-{group}", 1) is None


def test_a_function_takes_the_arguments_that_it_names() -> None:
    assert name(lambda chat_id: chat_id * 2, 21) == "42"
    assert name(lambda text, chat_id: f"{chat_id}{text}", 42) == "42hi"
    assert name(lambda *args, **kwargs: len(args) + len(kwargs), 42, "x", group=1) == "3"
    assert name(lambda chat_id, salt="s": f"{chat_id}{salt}", 42) == "42s"
    assert name(lambda chat_id: None, 42) is None
    assert name(max, 3, 9) == "9"


def test_an_enum_has_the_name_of_its_value() -> None:
    assert name("{chat_id}", Colour.RED) == "red"


@pytest.mark.parametrize(
    ("source", "lesson"),
    [
        ("{chat}", "has no parameter 'chat'; it has chat_id"),
        ("{chat_id!r}", "a format or a conversion"),
        ("{chat_id:>10}", "a format or a conversion"),
        ("{chat_id._secret}", "private"),
        ("{chat_id.__class__}", "private"),
        ("{}", "no field"),
        ("{0}", "no field"),
        ("{chat_id.}", "no field"),
        ("{chat_id", "brace"),
        ("", "empty"),
        (42, "want a template"),
        (lambda who: who, "has no parameter 'who'"),
    ],
)
def test_a_bad_template_is_refused_where_the_task_is_decorated(source: Any, lesson: str) -> None:
    def plain(chat_id: int) -> None: ...

    with pytest.raises(ConfigError, match=r"task greet") as caught:
        compile_name(source, inspect.signature(plain), "task greet: key")
    assert lesson in str(caught.value)


@pytest.mark.parametrize(
    ("source", "value"),
    [("{chat_id.id}", 42), ("{chat_id[x]}", {}), (lambda chat_id: 1 / 0, 42), ("{chat_id}", Plain()), ("{chat_id.bit_length}", 42)],
)
def test_arguments_that_give_no_name_are_refused_and_the_task_is_named(source: Any, value: Any) -> None:
    with pytest.raises(ArgumentsError, match="task greet: key"):
        name(source, value)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("-100_1.2@x", "-100_1.2@x"),
        ("a b,c|d~e!f%g+h:i", "a%20b%2Cc%7Cd%7Ee%21f%25g%2Bh%3Ai"),
        ("\n\x7fé", "%0A%7F%C3%A9"),
        ("#", "%23"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "#" + hashlib.sha256(b"x" * 129).hexdigest()[:32]),
    ],
)
def test_what_could_break_a_line_or_a_key_is_encoded(text: str, encoded: str) -> None:
    assert encode_name(text) == encoded


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_texts_have_different_names_of_at_most_128_safe_bytes(one: str, other: str) -> None:
    assert (encode_name(one) == encode_name(other)) == (one == other)
    assert len(encode_name(one)) <= 128
    assert encode_name(one).isascii()
    assert not set(encode_name(one)) & set(" ,|~!+:\n")


def test_a_value_is_taken_as_it_is() -> None:
    get = compile_argument("chat_id.chat.id", inspect.signature(handler), "cost")
    assert get((Update(Chat(7)),), {}) == 7
    assert compile_argument(lambda text: len(text), inspect.signature(handler), "cost")((1,), {"text": "abc"}) == 3
