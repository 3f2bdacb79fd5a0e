"""An argument arrives as what it is, equal and of the same type, or `delay` refuses it and says what to do."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from time import monotonic
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import freezegun
import msgpack
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from redisq import RedisQ
from redisq.codec.arrival import encode_call, encode_result
from redisq.codec.hints import shape_of
from redisq.codec.limits import MAX_BYTES
from redisq.codec.msgpack import decode, decode_value
from redisq.codec.same import first_change
from redisq.errors import DecodeError, EncodeError, MessageTooLarge
from redisq.message import Message
from redisq.testing import sandbox


class Mood(enum.Enum):
    GOOD = "good"
    PAIR = (1, 2)


class Text(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    HIGH = 3


class Flags(enum.IntFlag):
    ONE = 1
    TWO = 2


class Pair(NamedTuple):
    one: int
    mood: Mood = Mood.GOOD


class Name(str):
    __slots__ = ()


class Tagged(str):
    tag = ""


class Count(int):
    pass


class Ratio(float):
    pass


class Raw(bytes):
    pass


class Settings(dict[str, Any]):
    pass


class Items(list[Any]):
    pass


class Point(tuple[int, ...]):
    __slots__ = ()


class Stamp(datetime):
    pass


class Key(UUID):
    pass


@dataclass
class Question:
    text: str
    mood: Mood = Mood.GOOD
    anything: Any = None
    follow: list[Question] = field(default_factory=list)


@dataclass(eq=False)
class Unequal:
    number: int


class Model(pydantic.BaseModel):
    number: int
    when: datetime | None = None
    moods: set[Text] = set()
    inner: Model | None = None


class Aliased(pydantic.BaseModel):
    chat_id: int = pydantic.Field(alias="chatId")
    one: int = pydantic.Field(validation_alias="eins")
    two: int = pydantic.Field(2, serialization_alias="zwei")


class Strict(pydantic.BaseModel, strict=True):
    when: datetime
    pair: tuple[int, str]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    name: str


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Ids(pydantic.RootModel[list[int]]):
    pass


class Struct(msgspec.Struct):
    number: int
    when: datetime | None = None
    mood: Text = Text.A
    pair: tuple[int, int] = (1, 2)


class Started(msgspec.Struct, tag=True, rename="camel"):
    chat_id: int


class Stopped(msgspec.Struct, tag=True, array_like=True):
    chat_id: int


@attrs.define
class Attrs:
    number: int = attrs.field(validator=attrs.validators.instance_of(int))
    _hidden: Mood = Mood.GOOD
    again: Attrs | None = None


class Extended(typing_extensions.TypedDict, total=False):
    mood: typing_extensions.Required[Mood]
    text: str


class Update(TypedDict):
    mood: Mood
    question: NotRequired[Question]


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    value: T


UserId = NewType("UserId", Count)
OptionalMood = Optional[Mood]  # noqa: UP045 - as older code has it

NAIVE = datetime.fromisoformat("2026-01-02")
MODEL = Model(number=1, when=datetime(2026, 1, 2, tzinfo=UTC), moods={Text.A}, inner=Model(number=2))


def arrive(value: Any, hint: Any = None) -> Any:
    """Return what a handler gets that has this annotation for its parameter."""

    def handler(value): ...  # type: ignore[no-untyped-def]

    if hint is not None:
        handler.__annotations__["value"] = hint
    shape = shape_of(handler)
    body = encode_call(Message("t", (value,), None), shape, MAX_BYTES)
    sent = decode(body)
    by_name, _ = shape.revive(sent.args, sent.kwargs or {})
    return by_name[0]


PLAIN: list[Any] = [
    None, True, 1, 1.5, float("nan"), "a", "dziękuję", "Hallå", "שלום", b"a", [1], {"a": 1},
    {1: "a", b"b": None, None: 1.5, False: 2},
    (), (1, (2, [(3,)])), {"a": (1, {"b": ()})}, [()] * 3, NAIVE, date(2026, 1, 2), time(1, 2, tzinfo=UTC),
    timedelta(1),     Decimal("1.50"), Decimal("nan"), UUID(int=1), (UUID(int=1), Decimal(1)),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_arrive_without_an_annotation(value: Any) -> None:
    assert first_change(value, arrive(value)) is None


#: Values that no annotation-less parameter gets as they are: each with the annotations that bring them back.
ANNOTATED: list[tuple[Any, list[Any]]] = [
    (Mood.GOOD, [Mood, Mood | None, OptionalMood, Mood | int, Mood | Level]),
    (Mood.PAIR, [Mood, Literal[Mood.PAIR], Literal[Mood.GOOD, Mood.PAIR, None], list[Mood] | Literal[Mood.PAIR]]),
    (Text.A, [Text, Text | int]),
    (Level.HIGH, [Level, Level | Mood, Level | str]),
    (Flags.ONE | Flags.TWO, [Flags]),
    ([Text.A], [list[Text], Sequence[Text], list[Text | None]]),
    ((Text.A, 1), [tuple[Text, int]]),
    ((Text.A, Text.A), [tuple[Text, ...], Sequence[Text]]),
    ({Text.A: 1}, [dict[Text, int], Mapping[Text, int]]),
    ({Mood.GOOD: Level.HIGH}, [dict[Mood, Level]]),
    (Pair(1), [Pair, Pair | None, Pair | str]),
    ([Pair(1), Pair(2, Mood.PAIR)], [list[Pair]]),
    (Name("a"), [Name, Name | None]),
    (Count(1), [Count, UserId]),
    (Ratio(1.5), [Ratio]),
    (Raw(b"a"), [Raw]),
    (Settings(a=1), [Settings]),
    (Items([1]), [Items]),
    (Point((1, 2)), [Point]),
    (OrderedDict(b=1, a=2), [OrderedDict, OrderedDict[str, int]]),
    (OrderedDict(a=Text.A), [OrderedDict[str, Text]]),
    (Counter("aab"), [Counter, Counter[str]]),
    (Question("a", follow=[Question("b", Mood.PAIR)]), [Question, Question | None, Question | Attrs]),
    (Unequal(1), [Unequal]),
    (Box(1), [Box, Box[int]]),
    (MODEL, [Model, Model | None, Model | Cat, Cat | Model, Model | Text, Question | Model]),
    ([MODEL, Model(number=3)], [list[Model], Sequence[Model], list[Model | Cat]]),
    ({"a": MODEL}, [dict[str, Model], Mapping[str, Model | None]]),
    (Aliased(chatId=1, eins=2), [Aliased]),
    (Strict(when=NAIVE, pair=(1, "a")), [Strict]),
    ([Cat(name="a"), Dog(name="b")], [list[Cat | Dog], list[Dog | Cat | None]]),
    (Ids([1, 2]), [Ids]),
    (Struct(1, NAIVE, pair=(3, 4)), [Struct, Struct | None, Struct | int]),
    ([Started(1), Stopped(2)], [list[Started | Stopped]]),
    (Attrs(1, Mood.PAIR, Attrs(2)), [Attrs, Attrs | None, Attrs | Question]),
    ({"mood": Mood.GOOD, "question": Question("a")}, [Update, Update | None]),
    ([{"mood": Mood.GOOD}], [list[Update]]),
    ({"mood": Mood.GOOD}, [Extended, Extended | None, Question | Extended]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "hint"), [(value, hint) for value, hints in ANNOTATED for hint in hints])
def test_values_of_other_classes_arrive_by_their_annotation(value: Any, hint: Any) -> None:
    assert first_change(value, arrive(value, hint)) is None


@pytest.mark.parametrize("value", [value for value, _ in ANNOTATED])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: ({"a": value},)])
def test_without_an_annotation_they_are_refused(value: Any, wrap: Callable[[Any], Any]) -> None:
    for hint in (None, Any, object, "NoSuchName", Literal["a"]):
        with pytest.raises(
            EncodeError,
            match=r"task t: argument value of type \w+ would arrive as \w+: (annotate the|the annotation of the|send)",
        ):
            arrive(wrap(value), hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Text.A, str), (Text.A, str | Text), (Level.HIGH, int), (Level.HIGH, float), (Pair(1), tuple), (Pair(1), tuple[int, Mood]),
        (OrderedDict(a=1), dict[str, int]), (defaultdict(list, a=[1]), defaultdict[str, list[int]]),
        (defaultdict(list), None), (bytearray(b"a"), None), (memoryview(b"a"), None), ([bytearray(b"a")], None),
        (Question("a", anything=bytearray(b"a")), Question), (msgpack.Timestamp(1), None), (msgpack.ExtType(1, b""), None),
        (deque([1]), None), ({1}, None), (frozenset([1]), None), (1j, None), (object(), None), (2**64, None),
        (Stamp.fromisoformat("2026-01-02"), Stamp), (Stamp.fromisoformat("2026-01-02"), None),
        (Key(int=1), UUID), (time(1, tzinfo=ZoneInfo("Europe/Berlin")), None),
        ({Text.A: 1}, dict[str, int]), ({(1, 2): 1}, dict[tuple[int, int], int]), ({UUID(int=1): 1}, dict[UUID, int]),
        ({Mood.PAIR: 1}, dict[Mood, int]), ({Pair(1): 1}, dict[Pair, int]), ({memoryview(b"a"): 1}, None),
        ({date(2026, 1, 2): 1}, None),
        (Question("a", anything=Text.A), Question), (Question, None), (Model, None), (Model | int, None),
        (MODEL, dict), (MODEL, Question), (MODEL, Model | dict[str, Any]), (Struct(1), Model), (Attrs(1), Question),
        (Mood.GOOD, Mood | str), (Mood.GOOD, Mood | Any), (Model(number=1), int | str),
    ],
)  # fmt: skip
def test_values_that_would_change_are_refused_with_the_parameters_name(value: Any, hint: Any) -> None:
    with pytest.raises(EncodeError, match=r"task t: argument value\b"):
        arrive(value, hint)


def test_what_a_subclass_holds_beside_its_plain_value_is_not_lost_in_silence() -> None:
    plain = Tagged("a")
    assert type(arrive(plain, Tagged)) is Tagged
    plain.tag = "lost"
    with pytest.raises(EncodeError, match=r"argument value of type Tagged would not arrive as it is: send str\(\)"):
        arrive(plain, Tagged)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        (
            Text.A,
            None,
            "argument value of type Text would arrive as str: annotate the parameter value with Text, or send its .value",
        ),
        (OrderedDict(a=1), None, "annotate the parameter value with OrderedDict, or send dict() of it"),
        (defaultdict(list), defaultdict[str, list[int]], "of type defaultdict would arrive as dict: send dict() of it"),
        (Pair(1), None, "annotate the parameter value with Pair, or send tuple() of it"),
        (MODEL, None, "annotate the parameter value with Model, or send plain values"),
        (bytearray(b"a"), None, "bytearray cannot travel: send bytes() of it"),
        ({1}, None, "argument value of type set: set cannot travel: send list() of it"),
        ([{"a": deque((1,))}], None, "argument value of type list: deque cannot travel: send list() of it"),
        (2**64, None, "integers of more than 64 bits cannot travel: send str() of it"),
        (object(), None, "object cannot travel; send plain values, bytes, tuples"),
        ({(1, 2): 1}, None, "a map has a key of type tuple: keys are text, numbers, bytes or None"),
        (Text.A, "Hidden", "the annotation of the parameter value names what is not there at run time; import it outside"),
    ],
)
def test_the_error_says_what_to_do(value: Any, hint: Any, says: str) -> None:
    with pytest.raises(EncodeError) as refused:
        arrive(value, hint)
    assert says in str(refused.value)


def test_sent_by_name_the_place_is_named() -> None:
    with pytest.raises(
        EncodeError, match="argument 1 of type Text would arrive as str, since the handler's annotations are not here"
    ):
        encode_call(Message("t", (1, Text.A), None), None, MAX_BYTES)
    with pytest.raises(EncodeError, match="argument mood of type Mood would arrive as str"):
        encode_call(Message("t", (), {"mood": Mood.GOOD}), None, MAX_BYTES)
    assert decode(encode_call(Message("t", ((1, 2),), {"a": "b"}), None, MAX_BYTES)) == Message("t", [(1, 2)], {"a": "b"})


def test_plain_forms_sent_by_name_are_built_by_the_librarys_validation() -> None:
    def handler(model: Model, struct: Struct, attr: Attrs) -> None: ...

    args, _ = shape_of(handler).revive([{"number": 1, "when": "2026-01-02T00:00:00Z"}, {"number": 2}, {"number": 3}], {})
    assert list(args) == [Model(number=1, when=datetime(2026, 1, 2, tzinfo=UTC)), Struct(2), Attrs(3)]


class Span(NamedTuple):
    start: int
    end: int = 0


def test_only_calls_that_give_an_argument_to_build_are_looked_at() -> None:
    def handler(one, /, mood=Mood.GOOD, *, later=None): ...  # type: ignore[no-untyped-def]
    def others(one, *moods, **named): ...  # type: ignore[no-untyped-def]

    handler.__annotations__ = {"mood": Mood, "later": Mood}
    others.__annotations__ = {"moods": Mood}
    calls: list[tuple[Any, Any]] = [((1,), {}), ((1, "good"), {}), ((1,), {"mood": "good"}), ((1,), {"later": "good"})]
    assert [shape_of(handler).concerns(*call) for call in calls] == [False, True, True, True]
    assert [shape_of(others).concerns(*call) for call in calls] == [False, True, True, True]
    for shape in (shape_of(handler), shape_of(others)):
        with pytest.raises(EncodeError, match=r"argument moods?\S* does not fit its annotation: ValueError"):
            encode_call(Message("t", (1, "bad"), None), shape, MAX_BYTES)


@pytest.mark.parametrize(("mood", "pair"), [("good", (1, 2)), ("good", [1, 2]), (Mood.GOOD, [1, 2])])
def test_a_plain_value_is_accepted_beside_an_object_as_it_is_alone(mood: Any, pair: Any) -> None:
    def handler(question: Question, mood: Mood, pair: tuple[int, int]) -> None: ...

    shape = shape_of(handler)
    for question in (Question("a"), {"text": "a"}):
        sent = decode(encode_call(Message("t", (question, mood, pair), None), shape, MAX_BYTES))
        assert tuple(shape.revive(sent.args, {})[0]) == (Question("a"), Mood.GOOD, (1, 2))


def test_named_arguments_arrive_by_the_typed_dict_that_they_are_unpacked_from() -> None:
    def handler(**named: Unpack[Update]) -> None: ...

    shape, named = shape_of(handler), {"mood": Mood.GOOD, "question": Question("a")}
    sent = decode(encode_call(Message("t", (), named), shape, MAX_BYTES))
    assert shape.revive((), sent.kwargs or {}) == ((), named)


@dataclass(init=False)
class OwnConstructor:
    one: int
    two: int

    def __init__(self, one: int, two: int | None = None) -> None:
        self.one, self.two = one, two or one * 2


def test_a_dataclass_with_a_constructor_of_its_own_is_built_by_it() -> None:
    def handler(value: OwnConstructor) -> None: ...

    assert shape_of(handler).revive([{"one": 1}], {}) == ((OwnConstructor(1, 2),), {})
    assert first_change(OwnConstructor(1, 3), arrive(OwnConstructor(1, 3), OwnConstructor)) is None


class Asked(TypedDict):
    text: str


@dataclass
class Left:
    inner: Left | Right | None = None


@dataclass
class Right:
    inner: Left | Right | None = None


class LeftPair(NamedTuple):
    inner: LeftPair | RightPair | None = None


class RightPair(NamedTuple):
    inner: LeftPair | RightPair | None = None


class Unset(NamedTuple):
    mood: Mood = None  # type: ignore[assignment]


@dataclass
class Unasked:
    mood: Mood = None  # type: ignore[assignment]


@attrs.define
class Unsaid:
    mood: Mood = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ((1, 2), Span | tuple[int, int]),
        ((1, 2), Span | Any),
        ("good", Any | Mood),
        ([(1, 2)], list[Span | Any]),
        ((1, 2), Span | Pair | tuple[int, ...] | None),
        ({"mood": "good"}, Question | Update),
        ({"text": "a"}, Question | Asked),
    ],
)
def test_a_union_leaves_a_plain_value_that_one_of_its_choices_allows(value: Any, hint: Any) -> None:
    assert type(arrive(value, hint)) is type(value)


class HasSpan(TypedDict):
    span: Span


class HasTuple(TypedDict):
    span: tuple[int, int]


class Tree(TypedDict):
    span: Span
    inner: NotRequired[Tree]


class Tuples(TypedDict):
    span: tuple[int, int]
    inner: NotRequired[Tuples]


SPANS, TUPLES = [Span(1, 2), Span(3, 4)], [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (list[Span] | list[tuple[int, int]], [SPANS, TUPLES, []]),
        (list[Span] | list[tuple[int, ...]], [SPANS, TUPLES]),
        (list[Span] | list[tuple[Any, ...]] | None, [SPANS, TUPLES, None]),
        (list[Span] | tuple[tuple[int, int], ...], [SPANS, (*TUPLES,)]),
        (tuple[Span, ...] | tuple[tuple[int, int], ...], [(*SPANS,), (*TUPLES,)]),
        (tuple[int, Span] | tuple[int, tuple[int, int]], [(1, Span(1, 2)), (1, (1, 2))]),
        (Sequence[Span] | Sequence[tuple[int, int]], [SPANS, TUPLES, (*SPANS,), (*TUPLES,)]),
        (dict[str, Span] | dict[str, tuple[int, int]], [{"a": Span(1, 2)}, {"a": (1, 2)}, {}]),
        (dict[str, Span] | None | dict[str, tuple[int, int]], [{"a": Span(1, 2)}, {"a": (1, 2)}, None]),
        (list[dict[str, Span]] | list[dict[str, tuple[int, int]]], [[{"a": Span(1, 2)}], [{"a": (1, 2)}]]),
        (dict[str, list[Span]] | dict[str, list[tuple[int, int]]], [{"a": SPANS}, {"a": TUPLES}]),
        (list[Span | None] | list[tuple[int, int] | None], [[Span(1, 2), None], [(1, 2), None]]),
        (list[Pair] | list[tuple[int, Mood]], [[Pair(1)], [(1, Mood.GOOD)]]),
        (list[tuple[Span]] | list[tuple[tuple[int, int]]], [[(Span(1, 2),)], [((1, 2),)]]),
        (list[Point] | list[tuple[int, ...]], [[Point((1, 2))], TUPLES]),
        (list[Span | None] | list[tuple[int, int]], [SPANS, TUPLES]),
        (list[Mood] | list[Span] | list[tuple[int, int]], [[Mood.GOOD], SPANS, TUPLES]),
        (list[Name | int] | list[tuple[int, int]], [[Name("a"), 1], TUPLES]),
        (list[Question] | list[Asked], [[Question("a")], [{"text": "a"}]]),
        (dict[str, Model] | dict[str, Asked], [{"a": MODEL}, {"a": {"text": "a"}}]),
        (list[Model | Cat] | list[Asked], [[MODEL, Cat(name="a")], [{"text": "a"}]]),
        (list[Struct] | list[Asked], [[Struct(1)], [{"text": "a"}]]),
        (list[HasSpan] | list[HasTuple], [[{"span": Span(1, 2)}], [{"span": (1, 2)}]]),
        (HasSpan | HasTuple, [{"span": Span(1, 2)}, {"span": (1, 2)}]),
        (Tree | Tuples, [{"span": Span(1, 2), "inner": {"span": Span(3, 4)}}, {"span": (1, 2), "inner": {"span": (3, 4)}}]),
        (list[Question | Attrs] | list[Unset], [[Question("a")], [Unset(Mood.GOOD)]]),
        (dict[str, Left | Right] | dict[str, Model], [{"a": Left(Left())}, {"a": MODEL}]),
    ],
)
def test_each_value_of_a_union_of_containers_arrives_as_what_it_was(hint: Any, values: list[Any]) -> None:
    for value in values:
        assert first_change(value, arrive(value, hint)) is None


@pytest.mark.parametrize("hint", [list[Span] | list[tuple[int, int]], dict[str, Span] | dict[str, tuple[int, int]]])
def test_a_container_of_both_kinds_is_refused(hint: Any) -> None:
    mixed: Any = [Span(1, 2), (1, 2)]
    if hint == dict[str, Span] | dict[str, tuple[int, int]]:
        mixed = {"a": Span(1, 2), "b": (1, 2)}
    with pytest.raises(EncodeError, match=r"task t: argument value\b"):
        arrive(mixed, hint)


def test_a_class_arrives_beside_a_typed_dict_that_its_fields_do_not_fit() -> None:
    for question in (Question("a"), MODEL):
        assert first_change(question, arrive(question, Question | Asked | Model)) is None


@pytest.mark.parametrize(
    ("kinds", "wrap"), [((Left, Right), lambda inner: {"inner": inner}), ((LeftPair, RightPair), lambda inner: [inner])]
)
@pytest.mark.parametrize("leaf", [None, 1, "no"])
def test_unions_within_unions_take_no_time_that_doubles_with_each_level(
    kinds: tuple[Any, Any], wrap: Callable[[Any], Any], leaf: Any
) -> None:
    nested = leaf
    for _ in range(40):
        nested = wrap(nested)
    if leaf is None:
        assert isinstance(arrive(nested, kinds[0] | kinds[1]), kinds[0])
    else:
        with pytest.raises(EncodeError, match=r"argument value\S* does not fit its annotation: it fits none of the classes"):
            arrive(nested, kinds[0] | kinds[1])


class Branch(pydantic.BaseModel):
    kind: Literal["branch"] = "branch"
    inner: Branch | Leaf | None = None


class Leaf(pydantic.BaseModel):
    kind: Literal["leaf"] = "leaf"
    inner: Leaf | Branch | None = None


class Folder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    entries: dict[str, list[Folder | Link]] = pydantic.Field(default={}, alias="Entries")


class Link(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    entries: Mapping[str, tuple[Folder | Link, ...]] = pydantic.Field(default={}, validation_alias="Entries")


@dataclass
class Plus:
    inner: list[Plus | Minus] = field(default_factory=list)


class Minus(typing_extensions.TypedDict):
    inner: NotRequired[list[Plus | Minus]]


class Sum(pydantic.BaseModel):
    inner: list[Plus | Minus] = []


class Add(pydantic.BaseModel):
    kind: Literal["add"] = "add"
    inner: list[Annotated[Add | Multiply, pydantic.Field(discriminator="kind")]] = []


class Multiply(pydantic.BaseModel):
    kind: Literal["multiply"] = "multiply"
    inner: Annotated[Add | Multiply | None, pydantic.Field(discriminator="kind")] = None


def nested(wrap: Callable[[Any], Any], levels: int) -> Any:
    value = None
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.timeout(20)
@pytest.mark.parametrize("hint", [Branch, Branch | Leaf, list[Branch | Leaf] | None, dict[str, Leaf] | list[Branch], Any])
def test_models_that_pydantic_would_try_for_ever_are_refused_at_once(hint: Any) -> None:
    for outermost in (Branch, Leaf):
        wrapped: Any = outermost(inner=nested(lambda inner: Leaf(inner=inner), 50))
        for value in (wrapped, [wrapped], {"a": wrapped}):
            began = monotonic()
            with pytest.raises(EncodeError, match="argument value"):
                arrive(value, hint)
            assert monotonic() - began < 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("hint", "wrap"),
    [
        (Branch, lambda inner: {"kind": "leaf", "inner": inner}),
        (Folder | Link, lambda inner: {"Entries": {"a": [inner or {}]}}),
        (Folder | Question, lambda inner: {"entries": {"a": [inner or {}]}}),
        (Sum, lambda inner: {"inner": [inner or {}]}),
        (Link | None, lambda inner: {"Entries": {"a": [inner or {}]}}),
    ],
)
def test_plain_values_that_pydantic_would_try_for_ever_are_refused_where_they_are_sent(
    hint: Any, wrap: Callable[[Any], Any]
) -> None:
    value = nested(wrap, 20)
    with pytest.raises(
        EncodeError,
        match=r"task t: argument value: pydantic would try more than 100,000 models.*: give the union a discriminator.*levels$",
    ):
        arrive(value, hint)


def test_a_result_that_pydantic_would_try_for_ever_is_not_encoded() -> None:
    def handler() -> Branch | Leaf: ...  # type: ignore[empty-body]

    with pytest.raises(EncodeError, match="task t: the result: pydantic would try more than 100,000 models"):
        encode_result("t", nested(lambda inner: Branch(inner=inner), 50), shape_of(handler))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (nested(lambda inner: Add(inner=[inner] if inner else []), 30), Add),
        (Add(inner=[nested(lambda inner: Multiply(inner=inner), 50)]), Add),
        (nested(lambda inner: Model(number=1, inner=inner), 50), Model | Cat),
        (nested(lambda inner: Leaf(inner=inner), 8), Branch | Leaf),
        ([Leaf(inner=Branch())] * 2000, list[Branch | Leaf]),
        (Folder(Entries={"a": [Folder(Entries={"b": [Folder(), Folder()]})] * 1000}), Folder | Link),
    ],
)
def test_other_nested_models_arrive(value: Any, hint: Any) -> None:
    assert first_change(value, arrive(value, hint)) is None


@pytest.mark.parametrize("number", ["1e999999999", "1e-999999999", "0e999999999", "1e4300", "1e-4301", "9" * 4301])
def test_a_decimal_that_nobody_can_write_out_does_not_travel(number: str) -> None:
    with pytest.raises(EncodeError, match="argument value of type Decimal: a Decimal of more than 4300 digits cannot travel"):
        arrive(Decimal(number))
    with pytest.raises(DecodeError, match="a Decimal of more than 4300 digits"):
        decode_value(msgpack.packb(msgpack.ExtType(5, number.encode())))


@pytest.mark.parametrize("number", ["1e4299", "1e-4300", "9" * 4300, "-0.00", "Infinity", "-NaN"])
def test_other_decimals_travel(number: str) -> None:
    assert first_change(Decimal(number), arrive(Decimal(number))) is None


@pytest.mark.parametrize(("value", "hint"), [(None, Name), (1.7, Count), ("5", Count), ("ab", Items), (5, Raw), (NAIVE, Stamp)])
def test_a_value_of_another_type_is_not_converted(value: Any, hint: Any) -> None:
    assert first_change(value, arrive(value, hint)) is None


@pytest.mark.parametrize("hint", [Mood, Pair, Model, Update, Struct, tuple[int, int]])
def test_a_default_of_none_allows_none_whatever_the_annotation_says(hint: Any) -> None:
    def handler(value=None, *, other=None): ...  # type: ignore[no-untyped-def]

    handler.__annotations__ = {"value": hint, "other": hint}
    sent = decode(encode_call(Message("t", (None,), {"other": None}), shape_of(handler), MAX_BYTES))
    assert tuple(shape_of(handler).revive(sent.args, sent.kwargs or {})[0]) == (None,)


@pytest.mark.parametrize("value", [Unset(), Unasked(), Unsaid()])
def test_a_fields_default_of_none_arrives(value: Any) -> None:
    assert first_change(value, arrive(value, type(value))) is None


class Cached(pydantic.BaseModel):
    number: int

    @cached_property
    def double(self) -> int:
        return self.number * 2


def test_what_a_model_keeps_beside_its_fields_does_not_matter() -> None:
    model = Cached(number=1)
    assert model.double == 2
    assert first_change(model, arrive(model, Cached)) is None


@pytest.mark.parametrize(
    ("value", "hint"), [("bad", Mood), (None, Pair), ({"number": "x"}, Model), ([1, 2, 3], tuple[int, int]), ("a", Update)]
)
def test_plain_values_that_do_not_fit_are_refused_where_they_are_sent(value: Any, hint: Any) -> None:
    with pytest.raises(EncodeError, match=r"task t: argument value\S* does not fit its annotation: "):
        arrive(value, hint)


def test_a_frozen_clock_changes_nothing() -> None:
    with freezegun.freeze_time("2026-01-02"):
        assert arrive([datetime.now(UTC), date.today()]) == [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)]  # noqa: DTZ011
        encode_call(Message("t", (datetime.now(UTC),), None), None, MAX_BYTES)


def test_type_aliases_are_looked_into() -> None:
    assert type(arrive([Text.A], TypeAliasType("Texts", list[Text]))[0]) is Text


# -- any value ----------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.binary().map(bytearray), st.decimals(),
    st.datetimes(timezones=st.none() | st.timezones()), st.dates(), st.times(timezones=st.none() | st.timezones()),
    st.timedeltas(), st.uuids(), st.sampled_from([Mood.GOOD, Mood.PAIR, Text.A, Level.HIGH, Flags.ONE, Pair(1)]),
    st.sampled_from([MODEL, Struct(1), Attrs(1), Question("a"), Unequal(1)]), st.text().map(Name), st.integers().map(Count),
    st.floats().map(Ratio), st.binary().map(Raw), st.text().map(Tagged), st.uuids().map(lambda key: Key(int=key.int)),
)  # fmt: skip
KEYS = st.one_of(
    st.text(), st.integers(), st.binary(), st.booleans(), st.none(), st.floats(), st.uuids(), st.dates(), st.tuples(st.integers()),
    st.sampled_from([Mood.GOOD, Text.A, Level.HIGH, Pair(1)]), st.text().map(Name),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.lists(inner, max_size=4).map(Items),
        st.dictionaries(KEYS, inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=4).map(lambda found: defaultdict(list, found)),
        st.builds(Question, st.text(), anything=inner), st.builds(Box, inner), st.builds(Pair, inner),
    ),
    max_leaves=8,
)  # fmt: skip
HINTS = st.sampled_from([None, Any, *[hint for _, hints in ANNOTATED for hint in hints]])


@given(VALUES, HINTS)
def test_any_value_arrives_as_it_is_or_is_refused(value: Any, hint: Any) -> None:
    try:
        back = arrive(value, hint)
    except EncodeError as refused:
        assert str(refused).startswith("task t: argument ")  # noqa: PT017
    else:
        if hint in (None, Any):
            assert first_change(value, back) is None


@given(VALUES)
def test_any_result_arrives_as_it_is_or_is_refused(value: Any) -> None:
    def handler(): ...  # type: ignore[no-untyped-def]

    try:
        body = encode_result("t", value, shape_of(handler))
    except EncodeError:
        return
    assert first_change(value, decode_value(body)) is None


# -- from end to end ----------------------------------------------------------


def test_handlers_get_models_and_callers_get_their_results() -> None:
    app = RedisQ("bot")

    @app.task(result_ttl=60)
    def answer(model: Model, structs: list[Struct], *more: Attrs, **others: Pair) -> dict[str, Model | Cat]:
        assert type(structs[0]) is Struct
        assert type(more[0]) is Attrs
        assert type(others["pair"]) is Pair
        return {"model": model, "cat": Cat(name="a")}

    with sandbox(app) as box:
        job = answer.delay(MODEL, [Struct(1)], Attrs(1), pair=Pair(1))
        assert box.drain().done == 1
        for same_job in (job, app.job(job.id, task="answer")):
            assert same_job.get(timeout=0) == {"model": MODEL, "cat": Cat(name="a")}


def test_an_awaitable_gives_what_its_annotation_names() -> None:
    def answer() -> Awaitable[Text]: ...

    assert decode_value(encode_result("t", Text.A, shape_of(answer))) == "a"


@pytest.mark.parametrize(
    ("value", "hint"),
    [(True, int | Mood), (True, float | Mood), (1, float | Model), (NAIVE, date | Model), ([1], Sequence[int] | Mood)],
)
def test_plain_values_pass_a_union_with_their_type(value: Any, hint: Any) -> None:
    assert first_change(value, arrive(value, hint)) is None


def test_a_result_that_would_change_is_refused() -> None:
    app = RedisQ("bot")

    @app.task(result_ttl=60)
    def answer(): ...  # type: ignore[no-untyped-def]

    def result_of(value: Any) -> None:
        encode_result(answer.name, value, answer.shape)

    with pytest.raises(
        EncodeError, match="task answer: the result of type Text would arrive as str: annotate the return value with Text"
    ):
        result_of(Text.A)
    with pytest.raises(EncodeError, match="task answer: the result of type Model would arrive as dict"):
        result_of([MODEL])
    result_of((1, "a"))


# -- tuples on the wire -------------------------------------------------------


def test_the_bytes_of_a_tuple() -> None:
    assert encode_call(Message("t", ((1, "a"),), None), None, MAX_BYTES).hex(" ") == "94 02 a1 74 91 d6 07 92 01 a1 61 c0"


@pytest.mark.parametrize("value", [(1, 2), [{"a": ()}], Question("a", anything=(1,)), UUID(int=1), [1], Mood.PAIR])
def test_only_a_message_with_a_tuple_is_of_version_2(value: Any) -> None:
    hint = type(value) if isinstance(value, Question | Mood) else None
    shape = shape_of((lambda value: None) if hint is None else _annotated(hint))
    body = encode_call(Message("t", (value,), None), shape, MAX_BYTES)
    assert body[1] == (2 if b"\x07" in body else 1)
    # A writer in another language need not know of it.
    for version in (b"\x01", b"\x02"):
        assert decode(body[:1] + version + body[2:]) == decode(body)


def _annotated(hint: Any) -> Callable[[Any], None]:
    def handler(value): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["value"] = hint
    return handler


def test_tuples_count_as_levels_and_their_items_as_elements() -> None:
    deep: Any = ()
    for _ in range(65):
        deep = (deep,)
    with pytest.raises((EncodeError, MessageTooLarge), match="nested more than 64"):
        arrive(deep)
    raw = b"\x90"
    for _ in range(64):
        raw = msgpack.packb(msgpack.ExtType(7, b"\x91" + raw))
    with pytest.raises(DecodeError, match="MessageTooLarge: nested more than 64"):
        decode_value(raw)
    with pytest.raises(MessageTooLarge, match="more than 100000 elements"):
        arrive([(1, 2, 3)] * 30_000)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x80", b"\x90\x90", b"\x91", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x81\xd5\x07\x91\x01\x01"]
)
def test_tuples_that_do_not_read_are_errors(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"extension type|not msgpack|key of type|elements"):
        decode_value(msgpack.packb([msgpack.ExtType(7, data)]))
