"""The bytes of a message that came by the kombu transport: a msgpack map, the message as kombu has it.

`body` is what kombu made, text or bytes, and travels as it is: the stock transport puts Base64 around it. What msgpack
has no type for (a `datetime` in a header, say) travels as kombu's own JSON in an extension type. A redisq worker's
messages are arrays, so nobody can take one kind for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from redisq.codec.limits import check_limits
from redisq.codec.values import map_builder
from redisq.errors import DecodeError, EncodeError

__all__ = ["pack", "unpack"]

_AS_JSON = 64


def pack(message: dict[str, Any], to_json: Callable[[Any], str]) -> bytes:
    """Return the bytes of a message; `to_json` writes what msgpack cannot.

    Raises:
        EncodeError: Not even that can.
        MessageTooLarge: It has too many levels or elements.
    """
    try:
        packed: bytes = msgpack.packb(message, default=lambda value: msgpack.ExtType(_AS_JSON, to_json(value).encode()))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"a message of kombu: {error}") from error
    check_limits(packed, len(packed))
    return packed


def unpack(raw: bytes, from_json: Callable[[str], Any] = str) -> dict[str, Any]:
    """Return the message. Without `from_json`, what is in JSON is given as text.

    Raises:
        DecodeError: The bytes are none.
    """

    def extension(code: int, data: bytes) -> Any:
        return from_json(data.decode()) if code == _AS_JSON else msgpack.ExtType(code, data)

    try:
        check_limits(raw, len(raw))
        message = msgpack.unpackb(raw, ext_hook=extension, strict_map_key=False, object_pairs_hook=map_builder(raw))
    except Exception as error:
        raise DecodeError(f"no message of kombu: {type(error).__name__}") from error
    if not isinstance(message, dict) or not isinstance(message.get("properties"), dict):
        raise DecodeError("no message of kombu: not a map with properties")
    return message
