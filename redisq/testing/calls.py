"""The calls that a queue holds, decoded, and how one is compared with what a test wants."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.task import Task
from redisq.broker.commands import MAX_BATCH, Row, browse
from redisq.broker.keys import QueueKeys
from redisq.codec.msgpack import decode, decode_value, encode_value
from redisq.errors import ArgumentsError, DecodeError, EncodeError, MessageTooLarge
from redisq.states import State
from redisq.testing.clock import as_time

__all__ = ["Call", "Wanted", "calls_in"]

_SOON = (State.DELAYED, State.RETRY)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is in a queue.

    Attributes:
        id: Its job's id.
        task: The task's name.
        args: Positional arguments, as the handler will get them.
        kwargs: Named arguments, as the handler will get them.
        queue: The queue that it is in.
        state: `waiting`, `delayed`, `retry` or `dead`.
        due: When it may run, if it is delayed or waits for its next attempt.
        attempt: The number of its next run, from 1.
        reason: One word on why it is dead or tried again, e.g. `exhausted`; else empty.
        error: Its last error, as text; else empty.
    """

    id: str
    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    queue: str
    state: State
    due: datetime | None
    attempt: int
    reason: str
    error: str

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        due = f" until {self.due:%Y-%m-%d %H:%M:%S}" if self.due else ""
        reason = f" ({self.reason}: {self.error})" if self.reason else ""
        return f"{self.task}({', '.join(arguments)}) on queue {self.queue}, {self.state}{due}{reason}"


def calls_in(app: RedisQ, keys: QueueKeys, state: State) -> Iterator[Call]:
    """Give the calls of a queue that are in one state, in order."""
    offset = 0
    while rows := app.connector.execute(browse(keys, state, offset=offset, limit=MAX_BATCH)):
        offset += len(rows)
        yield from (_call(app, keys, state, row) for row in rows)


def _call(app: RedisQ, keys: QueueKeys, state: State, row: Row) -> Call:
    message = decode(row.body, app.settings.max_bytes)
    args: Sequence[Any] = message.args
    kwargs: Mapping[str, Any] = message.kwargs or {}
    if known := app.tasks.get(message.task):
        # Sent by name, they need not fit; the worker will say so.
        with suppress(DecodeError, TypeError):
            args, kwargs = known.shape.revive(args, kwargs)
    due = as_time(row.score) if state in _SOON else None
    meta = row.meta
    return Call(row.id, message.task, tuple(args), dict(kwargs), keys.queue, state, due, meta.attempt, meta.reason, meta.text)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The calls that a test looks for.

    Arguments are compared by parameter, however they were passed, and in the form in which they travel; what is not
    named here may be anything.

    Attributes:
        app: Whose tasks are known.
        task: The task, or its name.
        args: Its first positional arguments.
        kwargs: Some of its named arguments.
        queue: The queue; None: any.
    """

    app: RedisQ
    task: Task[..., Any] | str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None

    def __post_init__(self) -> None:
        signature = self._signature()
        try:
            if signature:
                signature.bind_partial(*self.args, **self.kwargs)
        except TypeError as error:
            raise ArgumentsError(f"no call of {self.name}{signature} could match: {error}") from None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task if isinstance(self.task, str) else self.task.name

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join([*arguments, '...'])})" + (f" on queue {self.queue}" if self.queue else "")

    def matches(self, call: Call) -> bool:
        """Whether it is such a call."""
        if call.task != self.name or self.queue not in (None, call.queue):
            return False
        wanted, there = self._parameters(self.args, self.kwargs), self._parameters(call.args, call.kwargs, complete=True)
        return all(name in there and _plain(value) == _plain(there[name]) for name, value in wanted.items())

    def _signature(self) -> inspect.Signature | None:
        known = self.app.tasks.get(self.name)
        return known.signature if known else None

    def _parameters(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, complete: bool = False) -> dict[Any, Any]:
        """Arguments by parameter; by place and name where the signature is not known, or does not fit."""
        if signature := self._signature():
            with suppress(TypeError):
                bound = signature.bind_partial(*args, **kwargs)
                if complete:
                    bound.apply_defaults()
                return bound.arguments
        return {**dict(enumerate(args)), **kwargs}


def _plain(value: Any) -> Any:
    """The value as it travels: an enum as its value. A test may write a list for a tuple."""
    try:
        return _lists(decode_value(encode_value(value)))
    except (EncodeError, DecodeError, MessageTooLarge):
        return value  # such as mock.ANY


def _lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return {name: _lists(item) for name, item in value.items()} if isinstance(value, dict) else value
