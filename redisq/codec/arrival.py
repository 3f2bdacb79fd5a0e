"""Encode calls and results so that each value arrives as what it is: equal and of the same type, or is refused."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from enum import Enum
from typing import Any

from redisq.codec.hints import Shape
from redisq.codec.misfits import misfit_of
from redisq.codec.models import is_model
from redisq.codec.msgpack import decode, decode_value, encode, encode_value
from redisq.codec.same import first_change
from redisq.codec.tries import TooManyTries
from redisq.codec.values import Flattener
from redisq.errors import DecodeError, EncodeError
from redisq.message import Message

__all__ = ["encode_call", "encode_result"]


def encode_call(message: Message, shape: Shape | None, max_bytes: int, *, by_name: bool = False) -> bytes:
    """Return a message's bytes.

    Args:
        message: The call.
        shape: What the handler builds out of the arguments; None: its code is not here.
        max_bytes: How large the message may be.
        by_name: Whether plain values fit their annotations is left to the worker.

    Raises:
        EncodeError: An argument cannot travel, or would arrive as something else.
        MessageTooLarge: The arguments are too large.
    """
    flattener = Flattener()
    body = encode(message, max_bytes, flattener, shape.names if shape else ())
    if flattener.lossy:
        for name, change in _changes(message, decode(body, max_bytes), shape):
            hidden = shape is not None and name in shape.unresolved
            what = _what(change, f"the parameter {name}" if shape else None, hidden)
            raise EncodeError(f"task {message.task}: argument {name} {what}")
    elif shape is not None and not shape.plain and not by_name and shape.concerns(message.args, message.kwargs or {}):
        _check_fit(decode(body, max_bytes), shape)
    return body


def _check_fit(sent: Message, shape: Shape) -> None:
    """Refuse plain values that the worker could make nothing of.

    Raises:
        EncodeError: One does not fit its annotation.
    """
    try:
        shape.revive(sent.args, sent.kwargs or {})
    except DecodeError as error:
        raise EncodeError(f"task {sent.task}: {error}") from error
    except TypeError:
        # The call does not fit the signature that is here; it may fit the worker's.
        return


def encode_result(task: str, returned: Any, shape: Shape) -> bytes:
    """Return the bytes of what a handler returned.

    Raises:
        EncodeError: It cannot travel, or would arrive as something else.
    """
    flattener = Flattener()
    body = encode_value(returned, flattener)
    if flattener.lossy:
        sent = decode_value(body, len(body))
        try:
            change = first_change(returned, shape.result(sent))
        except TooManyTries as error:
            raise EncodeError(f"task {task}: the result: {error}") from error
        except Exception as error:  # any code may stand in a class of the app
            raise EncodeError(f"task {task}: {misfit_of(error).at('the result')}") from error
        if change:
            raise EncodeError(f"task {task}: the result {_what(change, 'the return value')}")
    return body


def _changes(message: Message, sent: Message, shape: Shape | None) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Give the arguments that would arrive as something else: each parameter's name, with what would change in it."""
    kwargs, sent_kwargs = message.kwargs or {}, sent.kwargs or {}
    try:
        if shape is None:
            pairs = [*zip(map(str, range(len(sent.args))), message.args, sent.args, strict=True)]
            pairs += [(name, value, sent_kwargs[name]) for name, value in kwargs.items()]
        else:
            pairs = [*shape.compare(message.args, kwargs, *shape.revive(sent.args, sent_kwargs))]
        for name, before, after in pairs:
            # A plain value that its annotation makes an object of, such as "good" for a `Mood`, is meant so.
            if (change := first_change(before, after)) and _is_lossy(before):
                yield name, change
    except DecodeError as error:
        advice = "" if isinstance(error.__cause__, TooManyTries) else f"; {_ANNOTATE}, or send plain values"
        raise EncodeError(f"task {message.task}: {error}{advice}") from error
    except Exception as error:  # any code may stand in a class of the app
        raise EncodeError(
            f"task {message.task}: {type(error).__name__} when its arguments were compared; send plain values"
        ) from error


def _is_lossy(value: Any) -> bool:
    flattener = Flattener()
    encode_value(value, flattener)
    return flattener.lossy


_ANNOTATE = "annotate the handler's parameter with its class"
#: Of these nothing can be brought back, or plain is as good: what to send instead.
_INSTEAD = {str: "str()", bool: "bool()", int: "int()", float: "float()", bytes: "bytes()", dict: "dict()", list: "list()"}


def _what(change: tuple[Any, Any], place: str | None, hidden: bool = False) -> str:
    """Say what would become of a value, and what to do; its type, never the value."""
    before, after = change
    kind = type(before)
    would = f"of type {kind.__name__} would arrive as {type(after).__name__}"
    if type(before) is type(after) and kind is not collections.defaultdict:
        return f"of type {kind.__name__} would not arrive as it is: {_send(before)}"
    if kind is collections.defaultdict or (isinstance(before, dict | list) and place is None):
        return f"{would}: {_send(before)}"
    if place is None:
        return f"{would}, since the handler's annotations are not here: {_send(before)}"
    if hidden:
        return (
            f"{would}: the annotation of {place} names what is not there at run time;"
            f" import it outside `if TYPE_CHECKING`, or {_send(before)}"
        )
    return f"{would}: annotate {place} with {kind.__name__}, or {_send(before)}"


def _send(value: Any) -> str:
    if isinstance(value, Enum):
        return "send its .value"
    if not is_model(type(value)):
        for base, call in _INSTEAD.items():
            if isinstance(value, base):
                return f"send {call} of it"
        if isinstance(value, tuple):
            return "send tuple() of it"
    return "send plain values"
