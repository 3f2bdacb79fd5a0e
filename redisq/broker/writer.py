"""Send the enqueue commands of one event loop in the order in which they were made, many in one round trip.

Coroutines that call at the same time would each take a connection of their own, and reach Redis in any order. So all
calls of a loop go through one writer, which has one trip on its way at a time. What arrives meanwhile gathers and leaves
together with the next trip, as a group commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import Context
from dataclasses import replace
from itertools import chain
from math import inf
from typing import Any

from redisq.broker.commands import GATED_BATCH, MAX_BATCH, Command, Enqueued
from redisq.broker.connector import AsyncConnector
from redisq.errors import BrokerError, BrokerFull, BrokerUnavailable

__all__ = ["OrderedWriter"]

#: One trip carries at most this many bytes of messages, and at least one command: replies must not wait for megabytes.
TRIP_BYTES = 1_000_000

#: Values of one message in the arguments of an `enqueue` command: id, body, options.
_VALUES = 3


class _Call:
    """The commands of one caller.

    Attributes:
        results: One a command, as far as they are known.
        open: How many results are still to come.
        deadline: The caller waits until then, in seconds of the loop's clock; None: for ever.
        answer: Resolved with the results.
    """

    __slots__ = ("answer", "deadline", "open", "results")

    def __init__(self, size: int, deadline: float | None, answer: asyncio.Future[list[Any]]) -> None:
        self.results: list[Any] = [None] * size
        self.open = size
        self.deadline = deadline
        self.answer = answer

    def take(self, at: int, result: Any) -> None:
        """Store the result of one command, unless it has one; the last one wakes the caller."""
        if self.results[at] is not None:
            return
        self.results[at] = result
        self.open -= 1
        if not self.open and not self.answer.done():
            self.answer.set_result(self.results)


class _Part:
    """One command of a call, on its way to Redis."""

    __slots__ = ("at", "call", "command", "count", "limit", "size")

    def __init__(self, call: _Call, at: int, command: Command[Enqueued]) -> None:
        self.call = call
        self.at = at
        self.command = command
        self.count = len(command.args) // _VALUES
        self.size = sum(map(len, command.args[1::_VALUES]))
        has_gates = any("|" in options for options in command.args[2::_VALUES])
        self.limit = GATED_BATCH if has_gates else MAX_BATCH

    @property
    def queue(self) -> str:
        """The queue that it enqueues into, for texts and to tell queues apart."""
        return self.command.keys.prefix if self.command.keys else "?"

    def fail(self, what: str) -> None:
        """There will be no answer, unless there is one. The call keeps the answers of its other commands."""
        self.call.take(self.at, BrokerUnavailable(f"enqueue on queue {self.queue}: {what}"))


class _Batch:
    """Parts that travel as one command."""

    __slots__ = ("count", "limit", "parts")

    def __init__(self, part: _Part) -> None:
        self.parts = [part]
        self.count = part.count
        self.limit = part.limit

    def admit(self, part: _Part) -> bool:
        """Add a part of the same queue, if there is room."""
        limit = min(self.limit, part.limit)
        if self.count + part.count > limit:
            return False
        self.parts.append(part)
        self.count += part.count
        self.limit = limit
        return True


class OrderedWriter:
    """Carries `enqueue` commands in the order of the calls. Belongs to one event loop.

    A caller that is cancelled disturbs nobody else: what it has not sent yet is dropped, what is on its way is left alone.

    Args:
        connector: Carries the trips. A caller waits as long as its patience, also behind other callers.
    """

    def __init__(self, connector: AsyncConnector) -> None:
        self._connector = connector
        self._patience = connector.patience.seconds
        self._waiting: deque[_Part] = deque()
        self._sent: list[_Part] = []
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None

    async def execute_many(self, commands: Sequence[Command[Enqueued]]) -> list[Any]:
        """Run the commands after all that were handed in before. Return one result, or `BrokerError`, each."""
        if not self._busy and len(commands) == 1:
            # Nobody to wait for, and nobody to wait for this one yet: the shortest way.
            self._busy = True
            try:
                return await self._connector.execute_many(commands)
            except BrokerError as error:
                return [error]
            finally:
                self._busy = False
                self._send_rest()
        loop = asyncio.get_running_loop()
        deadline = None if self._patience is None else loop.time() + self._patience
        call = _Call(len(commands), deadline, loop.create_future())
        self._waiting += [_Part(call, at, command) for at, command in enumerate(commands)]
        self._send_rest()
        self._watch()
        return await call.answer

    async def aclose(self) -> None:
        """Fail the calls that are still open."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._sender:
            self._sender.cancel()
        for part in (*self._sent, *self._waiting):
            part.fail("the app was closed while the call was on its way")
        self._waiting.clear()

    def _send_rest(self) -> None:
        while self._waiting and self._waiting[0].call.answer.done():
            self._waiting.popleft()
        if self._waiting and not self._busy:
            self._busy = True
            # The trips serve many callers: they run in the context of none.
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())
            # Not a `finally`: a task that is cancelled before its first step never enters its body.
            self._sender.add_done_callback(self._sender_ended)

    async def _send(self) -> None:
        try:
            while trip := self._next_trip():
                await self._carry(trip)
        except Exception as error:  # noqa: BLE001 - its callers raise it
            # Not the fault of Redis. The callers get it, as they would from a call of their own.
            for part in self._sent:
                if not part.call.answer.done():
                    part.call.answer.set_exception(error)

    def _sender_ended(self, _: asyncio.Task[None]) -> None:
        for part in self._sent:
            # The trip was cancelled from outside, as by code that ends all tasks of its loop.
            part.fail(f"cancelled; {_UNKNOWN}")
        self._sent = []
        self._busy = False
        self._sender = None
        self._send_rest()

    def _next_trip(self) -> list[list[_Part]]:
        """Take what leaves together: calls that enqueue into the same queue share a command.

        A queue has one command a trip: what is too much for it waits for the next. Redis may refuse a command for the
        moment, as while it loads, and accept the one behind it: the retry would come too late.
        """
        self._sent = []
        queues: dict[str, _Batch] = {}
        size = 0
        while self._waiting and (not queues or size < TRIP_BYTES):
            part = self._waiting[0]
            if not part.call.answer.done():
                batch = queues.get(part.queue)
                if batch is None:
                    queues[part.queue] = _Batch(part)
                elif not batch.admit(part):
                    break
                size += part.size
                self._sent.append(part)
            self._waiting.popleft()
        return [batch.parts for batch in queues.values()]

    async def _carry(self, trip: list[list[_Part]]) -> None:
        # Of each queue what is still to be sent, in order, one command a round trip: as in `_next_trip`.
        left = [deque((parts,)) for parts in trip]
        while left:
            results = await self._execute([_joined(batches[0]) for batches in left])
            for batches, result in zip(left, results, strict=True):
                parts = batches.popleft()
                if len(parts) == 1:
                    parts[0].call.take(parts[0].at, result)
                elif not isinstance(result, BrokerError):
                    for part, own in zip(parts, _split(parts, result), strict=True):
                        part.call.take(part.at, own)
                elif isinstance(result, BrokerUnavailable | BrokerFull):
                    for part in parts:
                        part.call.take(part.at, _another(result))
                else:
                    # Redis accepts all messages of a command or none: one call must not fail for the fault of another.
                    middle = len(parts) // 2
                    batches.extendleft((parts[middle:], parts[:middle]))
            left = [batches for batches in left if batches]

    async def _execute(self, commands: list[Command[Enqueued]]) -> list[Any]:
        try:
            return await self._connector.execute_many(commands)
        except BrokerError as error:
            return [_another(error) for _ in commands]

    def _watch(self) -> None:
        if self._patience is not None and not self._timer:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._expire, self._patience)

    def _expire(self, patience: float) -> None:
        """Let go the callers whose patience is over. The oldest come first. They keep the answers that they have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        sent = len(self._sent)
        next_look = inf
        for place, part in enumerate(chain(self._sent, self._waiting)):
            call = part.call
            if call.answer.done():
                continue
            deadline = call.deadline or now
            if place < sent:
                # On its way, over a slow link: its time begins anew with each byte.
                deadline = max(deadline, self._connector.moved + patience)
            if deadline > now + 0.001:
                # Not once a call: a hundred times within the patience, however many wait.
                next_look = min(next_look, max(deadline, now + patience / 100))
                if place >= sent:
                    break
                continue
            part.fail(f"no answer within {patience:g} s; {_UNKNOWN if place < sent else 'the call was not sent'}")
        if next_look < inf:
            self._timer = loop.call_at(next_look, self._expire, patience)


_UNKNOWN = "the call may or may not have been carried out"


def _another(error: BrokerError) -> BrokerError:
    """Return the same error for one more caller: an error that several raise gathers the tracebacks of all."""
    another = type(error)(*error.args)
    another.__cause__ = error.__cause__
    return another


def _joined(parts: list[_Part]) -> Command[Enqueued]:
    if len(parts) == 1:
        return parts[0].command
    return replace(parts[0].command, args=tuple(value for part in parts for value in part.command.args))


def _split(parts: list[_Part], result: Enqueued) -> Iterator[Enqueued]:
    """Give each part its share of a joined command's answer."""
    is_plain = not (result.present or result.owners or result.refused)
    for part in parts:
        if is_plain:
            yield Enqueued([], {}, [])
            continue
        own = set(part.command.args[0::_VALUES])
        yield Enqueued(
            [ident for ident in result.present if ident in own],
            {ident: owner for ident, owner in result.owners.items() if ident in own},
            [ident for ident in result.refused if ident in own],
        )
