"""Carry commands to Redis: one piece of logic without I/O (`exchange`), and two short drivers, sync and async."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import redis
import redis.asyncio

from redisq.backoff import Backoff
from redisq.broker.callers import Caller, Callers
from redisq.broker.commands import Command
from redisq.broker.faults import TROUBLE, classify, is_noscript, raise_if_told
from redisq.broker.keys import ExchangeKeys, QueueKeys
from redisq.broker.listener import Listener, Listeners, aask, ask, listening, messages
from redisq.broker.scripts import Scripts
from redisq.broker.wire import AsyncWire, Wire
from redisq.errors import BrokerError, ProtocolError

#: Seconds that a call waits for a free connection before that counts as a failed try.
WAIT_FOR_CONNECTION = 5.0

__all__ = ["AsyncConnector", "Connector", "Observer", "Patience"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on trying while Redis gives no useful answer.

    Attributes:
        seconds: Then `BrokerUnavailable`; None: for ever, until the call is cancelled. Never more than a few minutes
            for a producer: the server remembers a call's answer for ten (`lua/include/ledger.lua`). A try whose bytes move
            may take longer (`idle.py`).
        backoff: The waits between the tries.
        tries: At least so many, even when the first took all the time: a call whose answer got lost may have been carried
            out, and only its repetition gets to know.
    """

    seconds: float | None = 5.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.05, cap=1.0))
    tries: int = 1


class Observer(Protocol):
    """Hears when Redis goes away and comes back."""

    def down(self, error: Exception) -> None:
        """A call failed and will be repeated."""

    def up(self) -> None:
        """A call was answered."""


class Silence:
    """An observer that does nothing."""

    def down(self, error: Exception) -> None:
        """A call failed and will be repeated."""

    def up(self) -> None:
        """A call was answered."""


@dataclass(frozen=True, slots=True)
class Send:
    """Step: send these raw calls in one write; the driver answers with one reply, or error reply, each."""

    calls: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: wait; first drop all connections if they are of no use."""

    seconds: float
    reconnect: bool


Exchange = Generator[Send | Pause, list[Any], list[Any]]


class _Carrier:
    """What both connectors share: everything but I/O."""

    def __init__(self, scripts: Scripts, patience: Patience, observer: Observer | None) -> None:
        self._scripts = scripts
        self._patience = patience
        self._observer: Observer = observer or Silence()
        self._callers = Callers()

    @property
    def patience(self) -> Patience:
        """How long a call goes on trying."""
        return self._patience

    def _call(self, command: Command[Any], caller: Caller | None, with_source: bool) -> tuple[Any, ...]:
        keys = command.keys
        if not command.script or keys is None:
            return command.args
        script = self._scripts[command.script]
        head = ("EVAL", script.source) if with_source else ("EVALSHA", script.sha)
        identity = (caller.name, caller.number) if caller else ()
        return (*head, keys.common, *identity, *command.args)

    def _exchange(self, commands: Sequence[Command[Any]], now: Callable[[], float]) -> Exchange:
        """Send commands until each is answered; return one result, or `BrokerError`, each.

        Raises:
            BrokerUnavailable: No useful answer to any of them within the patience.
        """
        callers = [self._callers.take() if command.numbered else None for command in commands]
        results: list[Any] = [None] * len(commands)
        pending = list(range(len(commands)))
        with_source: set[int] = set()
        deadline = None if self._patience.seconds is None else now() + self._patience.seconds
        failures = 0
        while pending:
            calls = [self._call(commands[at], callers[at], at in with_source) for at in pending]
            try:
                replies: list[Any] = yield Send(calls)
            except TROUBLE as error:
                replies = [error] * len(pending)
            again: list[int] = []
            trouble: Exception | None = None
            for at, reply in zip(pending, replies, strict=True):
                if not isinstance(reply, Exception):
                    results[at] = _parsed(commands[at], reply)
                elif is_noscript(reply):
                    with_source.add(at)
                    again.append(at)
                    continue
                elif (fault := classify(reply)).retry:
                    again.append(at)
                    trouble = reply
                    continue
                else:
                    results[at] = _explained(fault.error, fault.advice, commands[at], reply)
                caller = callers[at]
                if caller:
                    self._callers.give_back(caller)
            pending = again
            if trouble:
                failures += 1
                fault = classify(trouble)
                pause = self._patience.backoff.delay(failures, random.random)
                if deadline is not None and now() + pause > deadline and failures >= self._patience.tries:
                    if len(pending) == len(commands):
                        raise _explained(fault.error, fault.advice or _AWAY, commands[pending[0]], trouble) from trouble
                    # What was answered counts, whatever became of the rest.
                    for at in pending:
                        results[at] = _explained(fault.error, fault.advice or _AWAY, commands[at], trouble)
                    return results
                # A connection that was cut and is there again at once is no outage.
                if failures > 1:
                    self._observer.down(trouble)
                yield Pause(pause, fault.reconnect)
            else:
                self._observer.up()
        return results


_AWAY = "is Redis running, and is the URL right? The call may or may not have been carried out"


def _parsed(command: Command[Any], reply: Any) -> Any:
    """Read a reply. One that cannot be read is the error of its own command; the other commands of the trip have theirs."""
    try:
        return command.parse(reply)
    except Exception as error:  # noqa: BLE001 - any shape may come from a server that runs another script, or from a proxy
        return _explained(ProtocolError, "the server runs another program's script, or a proxy changed the reply", command, error)


def _explained(kind: type[BrokerError], advice: str, command: Command[Any], error: Exception) -> BrokerError:
    what = command.script or command.args[0]
    why = _first_line(error) + (f"; {advice}" if advice else "")
    explained = kind(f"{what}{_where(command.keys)}: {why}")
    explained.why = why
    explained.__cause__ = error
    return explained


def _where(keys: QueueKeys | ExchangeKeys | None) -> str:
    if keys is None:
        return ""
    return f" on exchange {keys.exchange}" if isinstance(keys, ExchangeKeys) else f" on queue {keys.prefix}"


def _in_database(client: redis.Redis | redis.asyncio.Redis, channel: str) -> str:
    """Name a channel for the client's database: a server has one set of channels for all of its databases."""
    return f"{channel}@{client.connection_pool.connection_kwargs.get('db') or 0}"


def _unheard(channel: str, error: Exception) -> BrokerError:
    fault = classify(error)
    return fault.error(f"channel {channel}: {_first_line(error)}; {fault.advice or _AWAY}")


def _first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]


def _single(results: list[Any]) -> Any:
    if isinstance(results[0], BrokerError):
        raise results[0]
    return results[0]


class Connector(_Carrier):
    """Carries commands over a `redis.Redis`. Thread-safe.

    Args:
        client: The client; `connection.py` builds it.
        scripts: The Lua scripts.
        patience: How long to go on trying.
        observer: Hears of trouble.
        now: Monotonic seconds.
        sleep: Waits.
        max_connections: At a time; more callers wait for a free one.
    """

    def __init__(
        self,
        client: redis.Redis,
        scripts: Scripts,
        patience: Patience = Patience(),
        observer: Observer | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        max_connections: int = 50,
    ) -> None:
        super().__init__(scripts, patience, observer)
        self._wire = Wire(client, max_connections, WAIT_FOR_CONNECTION)
        self._now = now
        self._sleep = sleep

    def execute(self, command: Command[T]) -> T:
        """Run one command.

        Raises:
            BrokerError: See `redisq.errors`.
        """
        result: T = _single(self.execute_many((command,)))
        return result

    def execute_many(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Run several in one write; one result, or `BrokerError` (returned, not raised), each.

        Raises:
            BrokerUnavailable: No useful answer in time.
        """
        flow = self._exchange(commands, self._now)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    if step.reconnect:
                        self._wire.reset()
                    self._sleep(step.seconds)
                    step = flow.send([])
                    continue
                try:
                    replies = self._wire.roundtrip(step.calls)
                except TROUBLE as error:
                    raise_if_told(error)
                    step = flow.throw(error)
                else:
                    step = flow.send(replies)
        except StopIteration as stop:
            results: list[Any] = stop.value
            return results

    def listening(self, channel: str) -> AbstractContextManager[Listener]:
        """Subscribe to a channel."""
        return listening(self._wire.client, channel)

    def in_database(self, channel: str) -> str:
        """Return the name under which a channel of this database is listened to."""
        return _in_database(self._wire.client, channel)

    def ask(self, channel: str, reply_channel: str, question: bytes, seconds: float) -> list[bytes]:
        """Ask all workers of this database that listen on a channel; they answer on `reply_channel`.

        Raises:
            AccessDenied: The server's ACL forbids one of the channels.
            BrokerUnavailable: Redis cannot be reached.
        """
        try:
            return ask(self._wire.client, _in_database(self._wire.client, channel), reply_channel, question, seconds)
        except TROUBLE as error:
            raise _unheard(channel, error) from error

    def close(self) -> None:
        """Close all connections; one that is with a caller, after its call. Later calls connect for themselves."""
        self._wire.close()


class AsyncConnector(_Carrier):
    """Carries commands over a `redis.asyncio.Redis`, in one event loop.

    Args:
        client: The client; `connection.py` builds it.
        scripts: The Lua scripts.
        patience: How long to go on trying.
        observer: Hears of trouble.
        now: Monotonic seconds.
        sleep: Waits.
        max_connections: At a time; more callers wait for a free one.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        scripts: Scripts,
        patience: Patience = Patience(),
        observer: Observer | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
        max_connections: int = 50,
    ) -> None:
        super().__init__(scripts, patience, observer)
        self._client = client
        self._wire = AsyncWire(client, max_connections, WAIT_FOR_CONNECTION)
        self._now = now
        self._sleep = sleep
        self._listeners = Listeners(client)

    async def execute(self, command: Command[T]) -> T:
        """Run one command.

        Raises:
            BrokerError: See `redisq.errors`.
        """
        result: T = _single(await self.execute_many((command,)))
        return result

    async def execute_many(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Run several in one write; one result, or `BrokerError` (returned, not raised), each.

        Raises:
            BrokerUnavailable: No useful answer in time.
        """
        flow = self._exchange(commands, self._now)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    if step.reconnect:
                        await self._wire.reset()
                    await self._sleep(step.seconds)
                    step = flow.send([])
                    continue
                try:
                    replies = await self._wire.roundtrip(step.calls)
                except TROUBLE as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(replies)
        except StopIteration as stop:
            results: list[Any] = stop.value
            return results

    @property
    def moved(self) -> float:
        """When a byte of a slow exchange moved last, in seconds of the loop's clock."""
        return self._wire.moved

    def listening(self, channel: str) -> AbstractAsyncContextManager[asyncio.Event]:
        """Subscribe to a channel; all subscriptions share one connection."""
        return self._listeners.listening(channel)

    async def ask(self, channel: str, reply_channel: str, question: bytes, seconds: float) -> list[bytes]:
        """Ask all workers of this database that listen on a channel; they answer on `reply_channel`.

        Raises:
            AccessDenied: The server's ACL forbids one of the channels.
            BrokerUnavailable: Redis cannot be reached.
        """
        try:
            return await aask(self._client, _in_database(self._client, channel), reply_channel, question, seconds)
        except TROUBLE as error:
            raise _unheard(channel, error) from error

    def messages(self, channel: str, subscribed: asyncio.Event, refused: Callable[[BrokerError], object]) -> AsyncIterator[bytes]:
        """Yield what is published on a channel for this database, for ever, while it is `subscribed`.

        Errors that no retry can cure are reported to `refused`.
        """

        def trouble(error: Exception) -> None:
            if not classify(error).retry:
                refused(_unheard(channel, error))

        return messages(self._client, _in_database(self._client, channel), subscribed, trouble)

    async def aclose(self) -> None:
        """End all subscriptions, and close all connections; one that is with a caller, after its call."""
        await self._listeners.aclose()
        await self._wire.aclose()
