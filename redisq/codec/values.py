"""Values beyond msgpack's own that travel, as a closed set of extension types.

A reader builds nothing but these plain values of the standard library; any other extension type is refused. What is of
another class (an enum, a dataclass, a subclass of `dict`) travels as its plain value, and the handler's annotations bring
it back (`hints.py`): nothing in a message names a class.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

import msgpack

from redisq.codec.limits import MAX_DEPTH
from redisq.codec.models import is_model, plain_form
from redisq.errors import DecodeError

__all__ = [
    "AS_DATETIME",
    "EXTENSIONS",
    "Flattener",
    "are_scalars",
    "build",
    "map_builder",
    "map_with_plain_keys",
    "refuse_lookalikes",
]

_MICROSECOND = timedelta(microseconds=1)

#: How msgpack's own timestamp is read, extension type -1, which writers in other languages may use.
AS_DATETIME = 3

#: Code -> what it is and how its bytes read.
EXTENSIONS: dict[int, str] = {
    1: "datetime, ISO 8601 text",
    2: "date, ISO 8601 text",
    3: "time, ISO 8601 text",
    4: "timedelta, decimal text of whole microseconds",
    5: "Decimal, decimal text",
    6: "UUID, 16 bytes",
    7: "tuple, a MessagePack array",
}


class Flattener:
    """Makes values that msgpack packs out of those that it does not know.

    Attributes:
        lossy: What arrives of a value among them is plain, unless an annotation brings it back.
        extended: A value of an extension type was among them.
        tuples: A tuple was among them.
    """

    lossy = False
    extended = False
    tuples = False
    _depth = 0

    def __call__(self, value: Any) -> Any:
        """Return a plain form of the value.

        Raises:
            TypeError: It does not travel.
        """
        kind = type(value)
        if kind is tuple:
            return self._tuple(value)
        if kind not in _EXTENDED:
            self.lossy = True
            plain = _plain(value)
            return plain if type(plain) in _PACKED else self(plain)
        self.extended = True
        return _extension(value)

    def _tuple(self, value: tuple[Any, ...]) -> msgpack.ExtType:
        self.extended = self.tuples = True
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TypeError(f"nested more than {MAX_DEPTH} levels deep")
        packed = msgpack.packb([*value], default=self, strict_types=True)
        self._depth -= 1
        return msgpack.ExtType(_TUPLE, packed)


_TUPLE = 7
_EXTENDED = frozenset((datetime, date, time, timedelta, Decimal, UUID))
#: What msgpack packs by itself.
_PACKED = frozenset((NoneType, bool, int, float, str, bytes, list, dict, msgpack.ExtType))


def _plain(value: Any) -> Any:
    """Return the plain value that stands for one of a class of its own.

    Raises:
        TypeError: None does.
    """
    if isinstance(value, Enum):
        return value.value
    if is_model(type(value)):
        return plain_form(value)
    kind = type(value)
    if kind is not int:
        # Subclasses, without what they do otherwise.
        for base, plain in _SUBCLASSES.items():
            if isinstance(value, base):
                return plain(value)
        if isinstance(value, tuple(_EXTENDED)):
            return _extension(value)
    if kind is int:
        raise TypeError("integers of more than 64 bits cannot travel: send str() of it")
    raise TypeError(_refusal(kind))


#: Of types that do not travel: what to send instead.
_INSTEAD: dict[type, str] = {
    **dict.fromkeys((set, frozenset, deque, range), "list()"),
    **dict.fromkeys((bytearray, memoryview), "bytes()"),
}


def _refusal(kind: type) -> str:
    instead = next((call for base, call in _INSTEAD.items() if issubclass(kind, base)), "")
    return f"{kind.__name__} cannot travel" + (f": send {instead} of it" if instead else "")


#: How a value of a subclass becomes one of the plain type.
_SUBCLASSES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: [*tuple.__iter__(value)],
}


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, datetime):
        return msgpack.ExtType(1, value.isoformat().encode())
    if isinstance(value, date):
        return msgpack.ExtType(2, value.isoformat().encode())
    if isinstance(value, time):
        if value.tzinfo is not None and value.utcoffset() is None:
            raise TypeError("a time in a zone whose offset depends on the date cannot travel: send a datetime")
        return msgpack.ExtType(3, value.isoformat().encode())
    if isinstance(value, timedelta):
        return msgpack.ExtType(4, str(value // _MICROSECOND).encode())
    if isinstance(value, Decimal):
        return msgpack.ExtType(5, str(_bounded(value)).encode())
    return msgpack.ExtType(6, value.bytes)


#: Of an integer, Python itself reads no more digits from text.
MAX_DIGITS = 4300


def _bounded(value: Decimal) -> Decimal:
    """Return a number that can be written out. An integer made of `1e999999999`, as models make it, takes minutes and gigabytes.

    Raises:
        DecodeError: It has too many digits.
    """
    _, digits, exponent = value.as_tuple()
    if len(digits) > MAX_DIGITS or (isinstance(exponent, int) and not -MAX_DIGITS <= exponent <= MAX_DIGITS - len(digits)):
        raise DecodeError(f"a Decimal of more than {MAX_DIGITS} digits cannot travel")
    return value


_SCALARS = frozenset((str, int, NoneType, bool, float, bytes))

# Bytes that can begin what msgpack packs without asking for its type: bin 8/16/32, or a value of an extension type.
_BINARY = re.compile(rb"[\xc4-\xc9\xd4-\xd8]")
_NOT_BINARY = bytes(byte for byte in range(256) if not (0xC4 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8))
_FEW = 64


def are_scalars(values: Iterable[Any]) -> bool:
    """Whether all are of the simple types that msgpack packs as what they are; those of most calls are."""
    return _SCALARS.issuperset(map(type, values))


def refuse_lookalikes(packed: bytes, value: Any) -> None:
    """Refuse values that msgpack packs, and that arrive as another type: a `bytearray` as bytes.

    Args:
        packed: The bytes of the value; those of most have none of these in them.
        value: What was packed.

    Raises:
        TypeError: One is in the value.
    """
    # The search is faster on few bytes.
    if not (_BINARY.search(packed) if len(packed) <= _FEW else packed.translate(None, _NOT_BINARY)):
        return
    _look_into((value,))


def _look_into(values: Iterable[Any]) -> None:
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is list or kind is tuple:
            _look_into(value)
        elif kind is dict:
            _look_into(value)
            _look_into(value.values())
        elif kind in _LOOKALIKES:
            raise TypeError(_refusal(kind))


_LOOKALIKES = frozenset((bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp))

# Bytes that can begin a value of an extension type: ext 8/16/32, fixext 1/2/4/8/16.
_NOT_EXTENSION = bytes(byte for byte in range(256) if not (0xC7 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8))


def map_builder(raw: bytes) -> Callable[[list[tuple[Any, Any]]], dict[Any, Any]] | None:
    """Return the function that builds the maps of these bytes; None: the decoder's own, which is faster, is safe.

    A sender can choose values of extension types so that all have one hash. A map with n such keys takes n * n comparisons:
    380 kB took a minute. Python hashes text and bytes with a secret of the process, and few numbers of 64 bits share a hash.
    To look through few bytes costs more than to build the one map that they may hold.
    """
    return map_with_plain_keys if len(raw) <= _FEW or raw.translate(None, _NOT_EXTENSION) else None


def map_with_plain_keys(items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a map.

    Raises:
        DecodeError: A key is of another type than text, numbers, bytes and None.
    """
    for key, _ in items:
        if key is not None and type(key) not in (str, int, bytes, float, bool):
            raise DecodeError(f"a map has a key of type {type(key).__name__}: keys are text, numbers, bytes or None")
    return dict(items)


def build(code: int, data: bytes) -> Any:
    """Return the value of an extension type.

    Raises:
        DecodeError: It is not one of ours, or its bytes do not read.
    """
    try:
        match code:
            case 1:
                return datetime.fromisoformat(data.decode("ascii"))
            case 2:
                return date.fromisoformat(data.decode("ascii"))
            case 3:
                return time.fromisoformat(data.decode("ascii"))
            case 4:
                # Python refuses integers of more than 4300 digits by itself; a timedelta has 20.
                return timedelta(microseconds=int(data.decode("ascii")))
            case 5:
                return _bounded(Decimal(data.decode("ascii")))
            case 6:
                return UUID(bytes=data)
            case 7:
                return _built_tuple(data)
    except (ValueError, ArithmeticError) as error:
        raise DecodeError(f"extension type {code}: {type(error).__name__}") from None
    raise DecodeError(f"extension type {code} is not one of this wire format")


def _built_tuple(data: bytes) -> tuple[Any, ...]:
    """Return a tuple. How deep tuples are nested, and how much is in them, `check_limits` has looked at before."""
    items = msgpack.unpackb(
        data, strict_map_key=False, ext_hook=build, timestamp=AS_DATETIME, object_pairs_hook=map_with_plain_keys
    )
    if type(items) is not list:
        raise DecodeError("extension type 7: no array")
    return tuple(items)
