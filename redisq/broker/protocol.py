"""Pack calls in the protocol of Redis, as arrays of bulk strings.

redis-py can do that, too, but it looks at each argument three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redisq.broker.replies import KEPT

__all__ = ["Prepared", "packed", "prepare"]

#: What stands before an argument of so many bytes.
_HEADS = tuple(b"$%d\r\n" % length for length in range(256))


class Prepared(NamedTuple):
    """Several arguments of a call that were packed before, since many calls have the same.

    Attributes:
        length: How many arguments.
        data: All of them, packed.
    """

    length: int
    data: bytes


def prepare(arguments: Iterable[bytes | str | int]) -> Prepared:
    """Pack arguments once for many calls."""
    values = [argument if isinstance(argument, bytes) else str(argument).encode("utf-8", KEPT) for argument in arguments]
    return Prepared(len(values), b"".join(b"$%d\r\n%s\r\n" % (len(value), value) for value in values))


def packed(calls: list[tuple[Any, ...]]) -> bytes:
    """Pack calls, one after the other. Arguments are bytes, text, whole numbers, or `Prepared` ones."""
    try:
        return _packed(calls, str.encode)
    except UnicodeEncodeError:  # an id that another program wrote, in other bytes than UTF-8
        return _packed(calls, lambda text: text.encode("utf-8", KEPT))


def _packed(calls: list[tuple[Any, ...]], encode: Callable[[str], bytes]) -> bytes:
    parts: list[bytes] = []
    for call in calls:
        begin, count = len(parts), len(call)
        parts.append(b"")  # the number of arguments, which is known at the end
        for argument in call:
            kind = type(argument)
            if kind is Prepared:
                count += argument.length - 1
                parts.append(argument.data)
                continue
            value = argument if kind is bytes else encode(argument if kind is str else str(argument))
            length = len(value)
            parts += (_HEADS[length] if length < 256 else b"$%d\r\n" % length, value, b"\r\n")
        parts[begin] = b"*%d\r\n" % count
    return b"".join(parts)
