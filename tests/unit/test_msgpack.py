"""Wire format v1: its bytes do not change, and no bytes do harm."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redisq.codec.msgpack import decode, encode
from redisq.errors import DecodeError, EncodeError, NewerMessage
from redisq.message import Message

#: Written once, read for ever.
GOLDEN = {
    "no arguments": (Message("t", [], None), b"\x94\x01\xa1t\x90\xc0"),
    "arguments": (
        Message("answer", [42, "hi"], None),
        b"\x94\x01\xa6answer\x92*\xa2hi\xc0",
    ),
    "keywords": (
        Message("answer", [], {"chat_id": -1, "text": "ü"}),
        b"\x94\x01\xa6answer\x90\x82\xa7chat_id\xff\xa4text\xa2\xc3\xbc",
    ),
    "every plain kind": (
        Message("t", [None, True, False, 2**63, -(2**63), 1.5, b"\x00\xff", [1], {"a": {"1": None}}, {2: 3}], None),
        b"\x94\x01\xa1t\x9a\xc0\xc3\xc2\xcf\x80\x00\x00\x00\x00\x00\x00\x00\xd3\x80\x00\x00\x00\x00\x00\x00\x00"
        b"\xcb?\xf8\x00\x00\x00\x00\x00\x00\xc4\x02\x00\xff\x91\x01\x81\xa1a\x81\xa11\xc0\x81\x02\x03\xc0",
    ),
}


@pytest.mark.parametrize(("message", "body"), GOLDEN.values(), ids=GOLDEN)
def test_the_bytes_of_a_message_stay_as_they_are(message: Message, body: bytes) -> None:
    assert encode(message) == body
    assert decode(body) == message


def test_empty_keywords_travel_as_none() -> None:
    assert decode(encode(Message("t", [], {}))).kwargs is None


def test_a_tuple_arrives_as_a_tuple() -> None:
    assert decode(encode(Message("t", ((1, 2), "a")))).args == [(1, 2), "a"]


KEYS = st.text() | st.integers(-(2**63), 2**64 - 1) | st.binary()
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8)
MESSAGES = st.builds(Message, st.text(), st.lists(VALUES), st.none() | st.dictionaries(st.text(), VALUES, min_size=1))


@given(MESSAGES)
def test_plain_values_arrive_as_they_were_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def _only_a_message_or_a_decode_error(body: bytes) -> None:
    try:
        message = decode(body)
    except DecodeError:
        return
    assert type(message) is Message
    assert type(message.task) is str
    assert type(message.args) is list
    assert message.kwargs is None or type(message.kwargs) is dict


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x91" * 100_000)
@example(b"\x94\x01\xa1t\xdd\xff\xff\xff\xff\xc0")
@example(b"\x94\x01\xa1t\x81\x90\x90\xc0")
@example(b"\x94\x01\xa1t\x91\xd6\xff\xff\xff\xff\xff\xc0")
@example(b"\x94\x01\xa1t\x91\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff\xc0")
@example(b"\x94\x01\xa1t\x91\xc7\x0c\xff" + b"\x7f" * 12 + b"\xc0")
def test_arbitrary_bytes_are_a_message_or_a_decode_error(body: bytes) -> None:
    _only_a_message_or_a_decode_error(body)


@given(MESSAGES, st.data())
def test_a_damaged_message_is_a_message_or_a_decode_error(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    _only_a_message_or_a_decode_error(bytes(body))


@given(st.integers(-128, 127), st.binary(max_size=40))
def test_an_extension_type_is_a_plain_value_or_a_decode_error(code: int, data: bytes) -> None:
    head = b"\xc7" + bytes([len(data)]) + code.to_bytes(1, "big", signed=True)
    try:
        (value,) = decode(b"\x94\x01\xa1t\x91" + head + data + b"\xc0").args
    except DecodeError:
        return
    assert type(value).__module__ in {"datetime", "decimal", "uuid"} or type(value) is tuple


@given(MESSAGES, st.integers(1))
def test_a_message_cut_short_or_grown_is_a_decode_error(message: Message, place: int) -> None:
    body = encode(message)
    with pytest.raises(DecodeError):
        decode(body[: place % len(body)])
    with pytest.raises(DecodeError):
        decode(body + b"\xc0")


def test_a_newer_message_is_one_whatever_types_its_version_has() -> None:
    with pytest.raises(NewerMessage, match="wire format 3; this worker reads up to 2"):
        decode(msgpack.packb([3, "t", [msgpack.ExtType(99, b"new")], None]))


@pytest.mark.parametrize("fields", [[3], [3, "t", [], None], [2**64 - 1, {}], [3, "t", [], None, "more"]])
def test_a_message_of_a_newer_version_says_so_whatever_is_in_it(fields: list[Any]) -> None:
    with pytest.raises(NewerMessage, match=f"wire format {fields[0]}"):
        decode(msgpack.packb(fields))


@pytest.mark.parametrize(
    "fields",
    [
        None, 1, "text", b"bytes", {}, {1: 2}, [], [1], [1, "t", []], [1, "t", [], None, None], [0, "t", [], None],
        [-1, "t", [], None], [True, "t", [], None], ["1", "t", [], None], [1.0, "t", [], None], [1, b"t", [], None],
        [1, None, [], None], [1, "t", {}, None], [1, "t", None, None], [1, "t", "ab", None], [1, "t", [], []],
        [1, "t", [], {1: 2}], [1, "t", [], {b"a": 2}], [1, "t", [], "a"],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_message_is_a_decode_error(fields: Any) -> None:
    with pytest.raises(DecodeError) as refused:
        decode(msgpack.packb(fields))
    assert type(refused.value) is DecodeError


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ([1, object()], None, "argument 1 of type object"),
        ([], {"a": 1, "who": {1, 2}}, "argument who= of type set"),
        ([2**64], None, "argument 0 of type int"),
        ([["\ud800"]], None, "argument 0 of type list"),
        ([1, 2, {"a": lambda: 0}], None, "argument 2 of type dict"),
        ([CIRCLE], None, "argument 0 of type list"),
    ],
)
def test_an_argument_that_cannot_travel_is_named_and_not_shown(args: list[Any], kwargs: Any, says: str) -> None:
    with pytest.raises(EncodeError) as refused:
        encode(Message("answer", args, kwargs))
    assert str(refused.value).startswith("task answer: ")
    assert says in str(refused.value)
    assert "18446744073709551616" not in str(refused.value)
