"""Values beyond msgpack's own that travel, as a closed set of extension types.

A reader builds nothing but these six plain values of the standard library; any other extension type is refused. Enums
and dataclasses travel as their plain values, and the handler's annotations bring them back (`hints.py`): nothing in a
message names a class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgpack

from redisq.errors import DecodeError

__all__ = ["EXTENSIONS", "Flattener", "build", "map_builder"]

_MICROSECOND = timedelta(microseconds=1)

#: Code -> what it is and how its bytes read.
EXTENSIONS: dict[int, str] = {
    1: "datetime, ISO 8601 text",
    2: "date, ISO 8601 text",
    3: "time, ISO 8601 text",
    4: "timedelta, decimal text of whole microseconds",
    5: "Decimal, decimal text",
    6: "UUID, 16 bytes",
}


class Flattener:
    """Makes values that msgpack packs out of those that it does not know.

    Attributes:
        lossy: An enum or a dataclass was among them: what arrives is its plain value, unless an annotation brings it back.
        extended: A value of an extension type was among them.
    """

    __slots__ = ("extended", "lossy")

    def __init__(self) -> None:
        self.lossy = False
        self.extended = False

    def __call__(self, value: Any) -> Any:
        """Return a plain form of the value.

        Raises:
            TypeError: It does not travel.
        """
        if isinstance(value, Enum):
            self.lossy = True
            return value.value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.lossy = True
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        self.extended = True
        return _extension(value)


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, datetime):
        return msgpack.ExtType(1, value.isoformat().encode())
    if isinstance(value, date):
        return msgpack.ExtType(2, value.isoformat().encode())
    if isinstance(value, time):
        return msgpack.ExtType(3, value.isoformat().encode())
    if isinstance(value, timedelta):
        return msgpack.ExtType(4, str(value // _MICROSECOND).encode())
    if isinstance(value, Decimal):
        return msgpack.ExtType(5, str(value).encode())
    if isinstance(value, UUID):
        return msgpack.ExtType(6, value.bytes)
    raise TypeError(f"{type(value).__name__} cannot travel")


# Bytes that can begin a value of an extension type: ext 8/16/32, fixext 1/2/4/8/16.
_NOT_EXTENSION = bytes(byte for byte in range(256) if not (0xC7 <= byte <= 0xC9 or 0xD4 <= byte <= 0xD8))


def map_builder(raw: bytes) -> Callable[[list[tuple[Any, Any]]], dict[Any, Any]] | None:
    """Return the function that builds the maps of these bytes; None: the decoder's own, which is faster, is safe.

    A sender can choose values of extension types so that all have one hash. A map with n such keys takes n * n comparisons:
    380 kB took a minute. Python hashes text and bytes with a secret of the process, and few numbers of 64 bits share a hash.
    """
    return _map_with_plain_keys if raw.translate(None, _NOT_EXTENSION) else None


def _map_with_plain_keys(items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    for key, _ in items:
        if key is not None and type(key) not in (str, int, bytes, float, bool):
            raise DecodeError(f"a map has a key of type {type(key).__name__}: keys are text, numbers or bytes")
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
                return Decimal(data.decode("ascii"))
            case 6:
                return UUID(bytes=data)
    except (ValueError, ArithmeticError) as error:
        raise DecodeError(f"extension type {code}: {type(error).__name__}") from None
    raise DecodeError(f"extension type {code} is not one of this wire format")
