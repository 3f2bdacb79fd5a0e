"""Middleware: a program's own steps on the way of a message. The base class, and what its hooks are told.

::

    enqueue ─▶ Redis ─▶ claim ─▶ run: handler ─▶ settle ─▶ and, when that is what it came to: retry, limited, dead
                                                 lost: the lease is another's, or nobody's

`enqueue` is called where the call is made; `run` where the handler runs: in the loop, in its thread, in its process; all
others in the worker's event loop, which they must not hold up.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from redisq.app.context import Context
from redisq.app.settings import SendOptions, send_options
from redisq.message import Delivery
from redisq.types import Seconds

__all__ = ["End", "Middleware", "OutgoingCall"]


@dataclass(frozen=True, slots=True)
class OutgoingCall:
    """A call that is about to be sent. It cannot be changed; `replace` makes another.

    Attributes:
        task: The task's name.
        queue: Where it goes.
        args: Positional arguments.
        kwargs: Named arguments.
    """

    task: str
    queue: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    send: SendOptions = field(repr=False)

    def replace(
        self,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        countdown: Seconds | None = None,
        eta: datetime | None = None,
        expires: Seconds | datetime | None = None,
        priority: int | None = None,
    ) -> OutgoingCall:
        """Return the call with other arguments or options, these as in `Task.options`. What is left out stays.

        Raises:
            ConfigError: An option is out of range, or both `countdown` and `eta` are given.
        """
        return replace(
            self,
            args=self.args if args is None else tuple(args),
            kwargs=self.kwargs if kwargs is None else MappingProxyType(dict(kwargs)),
            send=send_options(self.send, countdown=countdown, eta=eta, expires=expires, priority=priority),
        )


@dataclass(frozen=True, slots=True)
class End:
    """How a delivery ended.

    Attributes:
        id: The job's id.
        queue: Its queue.
        task: The task's name; None: the message could not be read, or no task here has that name.
        attempt: The number of the run, from 1.
        op: `ack`: done. `retry`: failed, again after `delay`. `dead`: a dead letter. `cancel`: stopped, as somebody wanted.
            `limited`: a platform had enough (429), again after `delay`, no attempt spent. `crash`: it took its process with
            it. `park`: put aside. `release`: given back. `lost`: no longer this worker's.
        reason: One word on why, e.g. `failed`, `exhausted`, `rejected`, `limited`; empty when all is well.
        error: The error as text, without secrets; empty when there was none.
        delay: Seconds until it may run again, for `retry`, `limited`, `crash` and `park`.
        run_time: Seconds that the handler ran.
        gate: For `limited`: the limit that pauses for all, e.g. `chat:42`; empty: only this message waits.
    """

    id: str
    queue: str
    task: str | None
    attempt: int
    op: str
    reason: str = ""
    error: str = ""
    delay: float = 0.0
    run_time: float = 0.0
    gate: str = ""


class Middleware:
    """A base class: override the hooks that you need. `RedisQ(middleware=[...])` has them called in that order.

    A hook that is not overridden costs nothing.
    """

    def enqueue(self, call: OutgoingCall) -> OutgoingCall:
        """A call is about to be sent; return it, or another in its place (`call.replace(...)`).

        The same method serves `delay` and `adelay`, so it must not wait for anything. What it raises goes to the caller,
        and nothing is sent: `CallRefused` as it is, any other exception as a `CallRefused` that names the middleware.
        """
        return call

    def claim(self, queue: str, delivery: Delivery) -> None:
        """A message came, under a lease. It is not decoded yet; `delivery.meta` knows its attempt."""

    def run(self, context: Context) -> Generator[None, Any, Any]:  # noqa: ARG002 - for those that override it
        """Around the handler: a generator that yields once, for the handler to run.

        The yield gives what the handler returned, or raises what it raised. What the generator raises instead stands in
        that error's place; if it raises nothing, the run is a success. A value that it returns replaces the result, None
        leaves it. An error before the yield fails the run, as an error of the handler does. An error after a handler that
        returned is logged, and the run stays a success, unless it is `Retry`, `Reject` or `RateLimited`. Without a yield,
        the handler is not called, and what the generator returns is the result.
        """
        yield

    def settle(self, end: End) -> None:
        """Redis has taken how a delivery ended, whatever it is."""

    def retry(self, end: End) -> None:
        """An attempt failed, and another will follow. After `settle`."""

    def limited(self, end: End) -> None:
        """A platform had enough (429, `RateLimited`): `end.gate` pauses, and the job runs again. After `settle`."""

    def dead(self, end: End) -> None:
        """A message became a dead letter. After `settle`.

        Not called for one that becomes a dead letter because its lease ran out for the last time: then no worker is left
        to tell, and `dlq_messages` of `redisq status` counts it.
        """

    def lost(self, end: End) -> None:
        """A lease is another's, or nobody's: the job will run again, or has, whatever the handler here comes to.

        If nobody else got it, the end of the handler may still be taken; then `settle` follows.
        """
