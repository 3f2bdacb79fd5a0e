"""Wire format v1: a msgpack array `[1, task, args, kwargs]`; kwargs is nil when there are none.

Only plain values travel: nil, booleans, integers of 64 bits, floats, text, bytes, lists, maps. No extension types, so
that nothing in a message can make a reader build an object.
"""

from __future__ import annotations

from typing import Any

import msgpack

from redisq.errors import DecodeError, EncodeError, NewerMessage
from redisq.message import Message

__all__ = ["VERSION", "decode", "encode"]

VERSION = 1


def encode(message: Message) -> bytes:
    """Return the message's bytes.

    Raises:
        EncodeError: An argument is of a type that does not travel; names the task and the argument.
    """
    try:
        packed: bytes = msgpack.packb((VERSION, message.task, message.args, message.kwargs or None))
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"task {message.task}: {_culprit(message)}") from error
    return packed


def _culprit(message: Message) -> str:
    """Say which argument does not travel; its type and place, never its value."""
    named = [(f"argument {place}", value) for place, value in enumerate(message.args)]
    named += [(f"argument {name}=", value) for name, value in (message.kwargs or {}).items()]
    for name, value in named:
        try:
            msgpack.packb(value)
        except (TypeError, ValueError, OverflowError) as error:
            return f"{name} of type {type(value).__name__} cannot travel ({type(error).__name__}); send plain values"
    return "its arguments cannot travel together"


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise DecodeError(f"extension type {code}: messages hold plain values only")


def decode(body: bytes) -> Message:
    """Return the message that the bytes hold.

    Raises:
        NewerMessage: Written by a newer version.
        DecodeError: Anything else than a message of this format.
    """
    try:
        fields = msgpack.unpackb(body, strict_map_key=False, ext_hook=_refuse_extension)
    except DecodeError:
        raise
    except Exception as error:  # msgpack raises half a dozen types; each means the same here
        raise DecodeError(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise DecodeError("not a redisq message: want [version, task, args, kwargs]")
    if fields[0] > VERSION:
        raise NewerMessage(f"wire format {fields[0]}; this worker reads up to {VERSION}")
    try:
        version, task, args, kwargs = fields
    except ValueError:
        raise DecodeError("not a redisq message: want [version, task, args, kwargs]") from None
    if version != VERSION or type(task) is not str or type(args) is not list or not _is_kwargs(kwargs):
        raise DecodeError("not a redisq message: want [1, text, list, map or nil]")
    return Message(task, args, kwargs)


def _is_kwargs(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(type(key) is str for key in value))
