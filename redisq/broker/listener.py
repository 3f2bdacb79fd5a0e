"""Hear that something happened, by publish and subscribe. Only ever a hint: who listens also looks once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as redis_errors

from redisq.broker.faults import raise_if_told
from redisq.cancelling import end_tasks
from redisq.clocks import monotonic

__all__ = ["Listener", "Listeners", "aask", "ask", "listening", "messages"]

# Besides errors of its own, redis-py raises these when a connection is closed between two steps of another task.
_TROUBLE = (redis_errors.RedisError, OSError, AttributeError, RuntimeError)

# Waits without a message, after which the connection is asked whether it is there, and after which it is not.
_ASK_AFTER, _GONE_AFTER = 2, 5


class Listener:
    """One sync subscription."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    def wait(self, seconds: float) -> None:
        """Return when the channel was spoken on, or after so many seconds."""
        deadline = monotonic() + seconds
        try:
            while (left := deadline - monotonic()) > 0:
                message = self._pubsub.get_message(timeout=left)
                if message and message["type"] == "message":
                    return
        except _TROUBLE as error:
            raise_if_told(error)
            # The connection is gone, and with it the subscription: from here on it is just a wait.
            time.sleep(max(deadline - monotonic(), 0))


@contextmanager
def listening(client: redis.Redis, channel: str) -> Iterator[Listener]:
    """Subscribe to one channel. From here on nothing said on it is missed, while the connection lasts."""
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(channel)
            pubsub.get_message(timeout=1.0)  # the server's word that it subscribed
        except _TROUBLE as error:
            raise_if_told(error)
            pubsub.reset()
        yield Listener(pubsub)


class Listeners:
    """All subscriptions of one event loop: one connection, opened for the first and closed after the last."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._heard: dict[str, set[asyncio.Event]] = {}
        self._pubsub: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set when the subscription stands, and whenever the channel is spoken on."""
        event = asyncio.Event()
        self._heard.setdefault(channel, set()).add(event)
        if self._reader is None or self._reader.done():
            # It outlives the caller, whose context variables are not its own.
            self._reader = asyncio.get_running_loop().create_task(self._read(), context=Context())
        elif self._pubsub is not None:
            self._start(self._pubsub.subscribe, channel)
        try:
            yield event
        finally:
            events = self._heard[channel]
            events.discard(event)
            if not events:
                del self._heard[channel]
                # After the last one the reader ends, and its connection with it.
                if self._pubsub is not None and self._heard:
                    self._start(self._pubsub.unsubscribe, channel)

    def _start(self, change: Callable[[str], Awaitable[Any]], channel: str) -> None:
        """Tell the server. Not in the caller's task, whose cancellation redis-py can swallow while it writes."""
        task = asyncio.get_running_loop().create_task(self._attempt(change, channel), context=Context())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _attempt(self, change: Callable[[str], Awaitable[Any]], channel: str) -> None:
        # The reader meets the same trouble, and subscribes anew.
        with suppress(*_TROUBLE):
            await change(channel)

    async def _read(self) -> None:
        while self._heard:
            try:
                async with self._client.pubsub() as pubsub:
                    known: set[str] = set()
                    # More may be asked for while it subscribes.
                    while new := self._heard.keys() - known:
                        await pubsub.subscribe(*new)
                        known |= new
                    await self._serve(pubsub)
            except _TROUBLE:
                await asyncio.sleep(1.0)

    async def _serve(self, pubsub: Any) -> None:
        # Others may subscribe only while the reader reads: not when it is about to close.
        self._pubsub = pubsub
        try:
            while self._heard:
                self._tell(await pubsub.get_message(timeout=1.0))
        finally:
            self._pubsub = None

    def _tell(self, message: Any) -> None:
        if message and message["type"] in ("subscribe", "message"):
            for event in self._heard.get(message["channel"].decode(), ()):
                event.set()

    async def aclose(self) -> None:
        """End the subscriptions."""
        await end_tasks((*self._changes, *((self._reader,) if self._reader else ())))


async def messages(
    client: redis.asyncio.Redis,
    channel: str,
    subscribed: asyncio.Event,
    trouble: Callable[[Exception], object],
    look: float = 1.0,
) -> AsyncIterator[bytes]:
    """Give what is said on a channel, for ever; what is said before it is `subscribed`, or while Redis is away, is missed.

    A connection that says nothing for long is asked whether it is still one: of a cut that nobody told of, who only
    listens would never know.

    Args:
        client: Whose connection.
        channel: What is listened to.
        subscribed: Set while the subscription stands, as far as is known.
        trouble: Told each error; then it subscribes anew.
        look: Seconds of one wait. Counted are waits, not seconds: a loop that was blocked is late by one of them at most.
    """
    while True:
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(channel)
                quiet = 0
                while True:
                    message = await pubsub.get_message(timeout=look)
                    quiet = 0 if message else quiet + 1
                    if message and message["type"] == "subscribe":
                        subscribed.set()
                    elif message and message["type"] == "message":
                        yield message["data"]
                    elif quiet == _ASK_AFTER:
                        await pubsub.ping()
                    elif quiet == _GONE_AFTER:
                        raise redis_errors.ConnectionError("no answer to a ping")
        except _TROUBLE as error:
            subscribed.clear()
            trouble(error)
            await asyncio.sleep(look)


def ask(client: redis.Redis, channel: str, reply_channel: str, question: bytes, seconds: float) -> list[bytes]:
    """Ask all who listen on a channel; give what they answer until all have, or the seconds are over."""
    answers: list[bytes] = []
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(reply_channel)
        pubsub.get_message(timeout=seconds)  # the server's word that it subscribed
        asked: Any = client.publish(channel, question)
        deadline = monotonic() + seconds
        while len(answers) < asked and (left := deadline - monotonic()) > 0:
            message = pubsub.get_message(timeout=left)
            if message and message["type"] == "message":
                answers.append(message["data"])
    return answers


async def aask(client: redis.asyncio.Redis, channel: str, reply_channel: str, question: bytes, seconds: float) -> list[bytes]:
    """Ask all who listen on a channel, from async code. As `ask`."""
    answers: list[bytes] = []
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(reply_channel)
        await pubsub.get_message(timeout=seconds)
        asked = await client.publish(channel, question)
        deadline = monotonic() + seconds
        while len(answers) < asked and (left := deadline - monotonic()) > 0:
            message = await pubsub.get_message(timeout=left)
            if message and message["type"] == "message":
                answers.append(message["data"])
    return answers
