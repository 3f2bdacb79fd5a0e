"""What travels beside plain values, and how it comes back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.codec.hints import shape_of
from redisq.codec.limits import MAX_BYTES, MAX_DEPTH, MAX_ELEMENTS, check_limits
from redisq.codec.msgpack import decode, decode_value, encode, encode_value
from redisq.codec.values import EXTENSIONS
from redisq.errors import DecodeError, EncodeError, MessageTooLarge
from redisq.message import Message


@given(
    st.one_of(
        st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=30))])),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.binary(),
    )
)
def test_values_of_the_standard_library_come_back_equal(value: Any) -> None:
    back = decode_value(encode_value([value, {"inside": value}]))
    assert back == [value, {"inside": value}]
    assert type(back[0]) is type(value)


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "c71901" + b"2026-01-02T03:04:05+00:00".hex()),
        (date(2026, 1, 2), "c70a02" + b"2026-01-02".hex()),
        (time(3, 4, 5), "d703" + b"03:04:05".hex()),
        (timedelta(days=-1, microseconds=1), "c70c04" + b"-86399999999".hex()),
        (Decimal("1.50"), "d605" + b"1.50".hex()),
        (UUID(int=1), "d806" + "00" * 15 + "01"),
    ],
)
def test_their_bytes_are_the_wire_format(value: object, golden: str) -> None:
    assert encode_value(value).hex() == golden


@pytest.mark.parametrize("code", sorted({*range(-128, 128)} - set(EXTENSIONS) - {-1}))
def test_any_other_extension_type_is_refused(code: int) -> None:
    # Negative codes are msgpack's own; its Python writer does not write them.
    raw = bytes([0xD4, code & 0xFF, 0])
    with pytest.raises(DecodeError, match=r"extension type|not msgpack"):
        decode_value(raw)


def test_msgpacks_own_timestamp_is_a_datetime() -> None:
    assert decode_value(msgpack.packb(msgpack.Timestamp(1))) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("raw", [b"\xd4\x01x", b"\xd4\x05x", b"\xd4\x06x", b"\xd4\x04x", b"\xd6\x01\xff\xff\xff\xff"])
def test_an_extension_that_does_not_read_is_an_error(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="extension type"):
        decode_value(raw)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Kind(StrEnum):
    CHAT = "chat"


@dataclass
class Question:
    text: str
    colour: Colour = Colour.RED
    follow: list[Question] = field(default_factory=list)


class Pair(NamedTuple):
    one: int
    two: int


def handler(
    question: Question,
    maybe: Colour | None,
    many: dict[str, Question],
    pair: tuple[int, Colour],
    *rest: Level,
    tagged: Annotated[Kind, "x"] = Kind.CHAT,
    **others: Colour,
) -> Question: ...


def test_annotations_bring_enums_and_dataclasses_back() -> None:
    args = (Question("a", follow=[Question("b")]), Colour.RED, {"c": Question("d")}, (1, Colour.RED), Level.HIGH, Level.HIGH)
    kwargs = {"tagged": Kind.CHAT, "more": Colour.RED}
    sent = decode(encode(Message("handler", args, kwargs)))
    assert shape_of(handler).revive(sent.args, sent.kwargs or {}) == (args, kwargs)
    assert shape_of(handler).revive((args[0], None, {}, (1, "red")), {}) == ((args[0], None, {}, (1, Colour.RED)), {})


def test_a_handler_of_plain_arguments_gets_them_untouched() -> None:
    def plain(a: int, b: str, c: list[dict[str, Any]], d: int | str) -> None: ...

    args: list[Any] = [1, "b", [{}], 2]
    assert shape_of(plain).plain
    assert shape_of(plain).revive(args, {})[0] is args


@pytest.mark.parametrize("value", ["x", {"txt": "unknown field"}, {}, 1, {"text": "a", "colour": "green"}])
def test_a_value_that_does_not_fit_its_annotation_is_an_error_that_names_it(value: object) -> None:
    def ask(question: Question) -> None: ...

    with pytest.raises(DecodeError, match="argument question"):
        shape_of(ask).revive([value], {})


def test_annotations_that_do_not_resolve_build_nothing() -> None:
    def ask(question: "NoSuchName") -> None: ...  # type: ignore[name-defined] # noqa: F821, UP037

    assert shape_of(ask).plain


@pytest.mark.parametrize("value", [object(), {1}, lambda: None, 1j, Question, range(3)])
def test_what_does_not_travel_is_refused(value: object) -> None:
    with pytest.raises(EncodeError):
        encode_value(value)


def test_sizes_depths_and_counts_are_limited_on_both_sides() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    for too_much, says in (
        (["x" * MAX_BYTES], "bytes, more than 1048576"),
        ([deep], "nested more than 64"),
        ([[None] * MAX_ELEMENTS], "more than 100000 elements"),
    ):
        with pytest.raises(MessageTooLarge, match=f"task t: .*{says}"):
            encode(Message("t", too_much))
        raw = msgpack.packb([1, "t", too_much, None])
        with pytest.raises(DecodeError, match="MessageTooLarge"):
            decode(raw)
    with pytest.raises(MessageTooLarge, match="more than 10"):
        encode(Message("t", ["0123456789"]), 10)


@given(st.recursive(st.none() | st.text() | st.binary() | st.floats() | st.integers(-(2**63), 2**64 - 1), st.lists, max_leaves=40))
def test_text_of_any_script_is_not_taken_for_depth(value: object) -> None:
    check_limits(msgpack.packb(["щука " * 40, value]))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_typed_error(raw: bytes) -> None:
    for bomb in (raw, b"\x91" * 70 + raw, b"\xdd\xff\xff\xff\xff" + raw):
        with suppress(DecodeError):
            decode_value(bomb)
