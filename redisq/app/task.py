"""The task: a handler, its options, and the ways to call it later."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from redisq.app.job import Job
from redisq.app.settings import NOW, SendOptions, TaskOptions, check_priority, due_text
from redisq.message import Message
from redisq.types import Seconds

__all__ = ["Task"]

P = ParamSpec("P")
R = TypeVar("R")

#: The arguments of one call in `delay_many`: positional ones as a sequence, or named ones as a mapping.
Arguments = Sequence[Any] | Mapping[str, Any]


class Sender(Protocol):
    """What a task needs of its app."""

    def enqueue(self, options: TaskOptions, send: SendOptions, messages: list[Message]) -> list[Job]:
        """Store the messages; all of them, or an error."""

    async def aenqueue(self, options: TaskOptions, send: SendOptions, messages: list[Message]) -> list[Job]:
        """Store the messages; all of them, or an error."""


class Task(Generic[P, R]):
    """A bot-logic function that can be called later, by another process.

    Calling the task itself just calls the function. `delay` and `adelay` send the call to the task's queue and keep
    the function's signature for type checkers.
    """

    def __init__(self, sender: Sender, handler: Callable[P, R], options: TaskOptions, send: SendOptions = NOW) -> None:
        self._sender = sender
        self._send = send
        self.handler = handler
        self.definition = options
        self.is_async = inspect.iscoroutinefunction(handler)
        update_wrapper(self, handler)

    @property
    def name(self) -> str:
        """What messages call the task."""
        return self.definition.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name} on queue {self.definition.queue}>"

    def options(self, *, countdown: Seconds | None = None, eta: datetime | None = None, priority: int | None = None) -> Task[P, R]:
        """Return the same task with other options for its calls.

        Args:
            countdown: Seconds from now until it is due, or a `timedelta`.
            eta: The time when it is due; needs a time zone. In the past: now.
            priority: 0 to 255, higher first.

        Raises:
            ConfigError: An option is out of range, or both `countdown` and `eta` are given.
        """
        send = self._send
        if countdown is not None or eta is not None:
            send = replace(send, due=due_text(countdown, eta))
        if priority is not None:
            send = replace(send, priority=check_priority(priority))
        return Task(self._sender, self.handler, self.definition, send)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Send one call. When it returns, Redis has the message.

        Raises:
            EncodeError: An argument cannot travel.
            BrokerError: Redis did not take it; see `redisq.errors`.
        """
        return self._sender.enqueue(self.definition, self._send, [Message(self.name, args, kwargs)])[0]

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Send one call, from async code. As `delay`."""
        return (await self._sender.aenqueue(self.definition, self._send, [Message(self.name, args, kwargs)]))[0]

    def delay_many(self, calls: Iterable[Arguments]) -> list[Job]:
        """Send many calls, a thousand a round trip: `[(42, "a"), (43, "b")]`, or mappings of named arguments.

        Raises:
            EncodeError: An argument cannot travel; nothing was sent.
            PartlyEnqueued: Redis took some thousands of them, and not the others.
            BrokerError: Redis took none.
        """
        return self._sender.enqueue(self.definition, self._send, self._messages(calls))

    async def adelay_many(self, calls: Iterable[Arguments]) -> list[Job]:
        """Send many calls, from async code. As `delay_many`."""
        return await self._sender.aenqueue(self.definition, self._send, self._messages(calls))

    def _messages(self, calls: Iterable[Arguments]) -> list[Message]:
        name = self.name
        return [Message(name, (), dict(call)) if isinstance(call, Mapping) else Message(name, tuple(call)) for call in calls]
