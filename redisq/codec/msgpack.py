"""Wire format: a msgpack array `[version, task, args, kwargs]`; kwargs is nil when there are none.

The version is 2 where a tuple is in a message, and 1 else. A reader puts a message of a later version aside for who reads it.

Plain values travel as msgpack has them: nil, booleans, integers of 64 bits, floats, text, bytes, lists, maps; seven more
of the standard library as extension types (`values.py`). Nothing else: no message can make a reader import or build
anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgpack import packb as _pack
from msgpack import unpackb as _unpackb

from redisq.codec.limits import MAX_BYTES, MAX_DEPTH, check_limits
from redisq.codec.values import AS_DATETIME, Flattener, are_scalars, build, map_builder, map_with_plain_keys, refuse_lookalikes
from redisq.errors import DecodeError, EncodeError, MessageTooLarge, NewerMessage
from redisq.message import Message

__all__ = ["VERSION", "decode", "decode_value", "encode", "encode_value"]

VERSION = 2
_WITHOUT_TUPLES = 1

_TRAVELS = (
    "send plain values, bytes, tuples, datetime, date, time, timedelta, Decimal, UUID,"
    " or what an annotation brings back: Enum, NamedTuple, dataclass, pydantic, msgspec or attrs models"
)


def encode(message: Message, max_bytes: int = MAX_BYTES, flatten: Flattener | None = None, names: Sequence[str] = ()) -> bytes:
    """Return the message's bytes.

    Args:
        message: The call.
        max_bytes: How large it may be.
        flatten: Makes plain what msgpack does not know; it notes what it met.
        names: Of the handler's parameters that are given by their place, for errors.

    Raises:
        EncodeError: An argument is of a type that does not travel; names the task and the argument.
        MessageTooLarge: Too many bytes, levels or elements.
    """
    flatten = flatten or Flattener()
    args, kwargs = [*message.args], message.kwargs or None
    call = [_WITHOUT_TUPLES, message.task, args, kwargs]
    try:
        packed: bytes = _pack(call, default=flatten, strict_types=True)
        if not are_scalars(args) or (kwargs and not (are_scalars(kwargs) and are_scalars(kwargs.values()))):
            _check(packed, call, flatten)
        if flatten.tuples:
            packed = packed[:1] + bytes([VERSION]) + packed[2:]
    except Exception as error:  # a dataclass may run any code when it is looked at
        raise EncodeError(f"task {message.task}: {_culprit(message, names)}") from error
    # So few bytes hold no more levels or elements than are allowed.
    if len(packed) > MAX_DEPTH or len(packed) > max_bytes:
        try:
            check_limits(packed, max_bytes)
        except MessageTooLarge as error:
            raise MessageTooLarge(f"task {message.task}: {error}") from None
    return packed


def encode_value(value: Any, flatten: Flattener | None = None) -> bytes:
    """Return the bytes of one value, e.g. a result.

    Raises:
        EncodeError: It does not travel.
    """
    try:
        return _packed(value, flatten or Flattener())
    except Exception as error:  # as above
        raise EncodeError(f"a value of type {type(value).__name__}: {_advice(error)}") from error


def _packed(value: Any, flatten: Flattener) -> bytes:
    packed: bytes = _pack(value, default=flatten, strict_types=True)
    _check(packed, value, flatten)
    return packed


def _check(packed: bytes, value: Any, flatten: Flattener) -> None:
    """Refuse what msgpack packs, and no reader takes as what it was."""
    refuse_lookalikes(packed, value)
    if flatten.extended or flatten.lossy:
        # As a key of a map such a value may be refused where it arrives: then it must not leave.
        _unpackb(packed, strict_map_key=False, ext_hook=build, timestamp=AS_DATETIME, object_pairs_hook=map_with_plain_keys)


def _culprit(message: Message, names: Sequence[str]) -> str:
    """Say which argument does not travel; its type and place, never its value."""
    places = [*names, *range(len(names), len(message.args))]
    named = [(f"argument {place}", value) for place, value in zip(places, message.args, strict=False)]
    named += [(f"argument {name}=", value) for name, value in (message.kwargs or {}).items()]
    for name, value in named:
        try:
            _packed(value, Flattener())
        except Exception as error:  # noqa: BLE001 - as above
            return f"{name} of type {type(value).__name__}: {_advice(error)}"
    return "its arguments cannot travel together"


def _advice(error: Exception) -> str:
    """Say why a value cannot travel, and what to send instead."""
    why = str(error) if type(error) in (TypeError, DecodeError) else type(error).__name__
    return why if ": send " in why else f"{why}; {_TRAVELS}"


def decode_value(raw: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Return the value that the bytes hold.

    Raises:
        DecodeError: They hold none of this format, or too large a one.
    """
    try:
        # So few bytes hold no more levels or elements than are allowed.
        if len(raw) > MAX_DEPTH or len(raw) > max_bytes:
            check_limits(raw, max_bytes)
        return _unpackb(raw, strict_map_key=False, ext_hook=build, timestamp=AS_DATETIME, object_pairs_hook=map_builder(raw))
    except DecodeError:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises half a dozen types; each means the same here
        raise DecodeError(f"not msgpack: {type(error).__name__}: {_short(error)}") from None


def _short(error: Exception) -> str:
    return str(error)[:80] if isinstance(error, MessageTooLarge) else "unreadable"


def decode(body: bytes, max_bytes: int = MAX_BYTES) -> Message:
    """Return the message that the bytes hold.

    Raises:
        NewerMessage: Written by a newer version.
        DecodeError: Anything else than a message of this format.
    """
    if len(body) > 1 and 0x91 <= body[0] <= 0x9F and VERSION < body[1] <= 0x7F:
        # Before the rest is read: it may hold what only the newer version knows.
        raise NewerMessage(_newer(body[1]))
    fields = decode_value(body, max_bytes)
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise DecodeError("not a redisq message: want [version, task, args, kwargs]")
    if fields[0] > VERSION:
        raise NewerMessage(_newer(fields[0]))
    try:
        version, task, args, kwargs = fields
    except ValueError:
        raise DecodeError("not a redisq message: want [version, task, args, kwargs]") from None
    if version < _WITHOUT_TUPLES or type(task) is not str or type(args) is not list or not (kwargs is None or _is_kwargs(kwargs)):
        raise DecodeError("not a redisq message: want [1 or 2, text, list, map or nil]")
    return Message(task, args, kwargs)


def _newer(version: int) -> str:
    return f"wire format {version}; this worker reads up to {VERSION}"


def _is_kwargs(value: object) -> bool:
    return isinstance(value, dict) and all(type(key) is str for key in value)
