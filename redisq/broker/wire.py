"""Write calls, read their replies: on redis-py's connections, without its clients.

redis-py connects, logs in, does TLS and parses. Its clients are left out of the way: for each command they take a
connection from the pool, poll its socket, pass retry and telemetry wrappers and give it back, which costs more than the
command. A wire keeps its connections, and packs calls itself (`protocol.py`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import Context
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as redis_errors

from redisq.broker.blocking import readable
from redisq.broker.faults import TROUBLE, raise_if_told
from redisq.broker.forks import after_fork, reopened
from redisq.broker.idle import LOOKS, Idle, unsent
from redisq.broker.protocol import packed

__all__ = ["AsyncWire", "Wire"]

#: Sync code sends more than this in pieces: a socket's timeout is for all that it is given at once.
_PIECE = 65536


def _failed(replies: list[Any], error: Exception, wanted: int) -> list[Any]:
    """What was read counts; the rest has the error."""
    return replies + [error] * (wanted - len(replies))


def _check(idle: Idle, seen: int) -> None:
    """Raise when bytes have not moved for too long."""
    if verdict := idle.verdict(time.monotonic(), seen):
        raise redis_errors.TimeoutError(verdict)


class Wire:
    """Connections for sync code. Thread-safe; a forked child opens its own.

    A connection is with one caller, or it is free. Nobody else touches one that is with a caller: not who connects anew, not
    who closes. A closed wire still carries calls, and keeps no connection open between them.

    Args:
        client: Gives connections by its pool.
        max_connections: At a time; more callers wait.
        patience: Seconds that they wait.

    Attributes:
        client: The client of this process; a forked child has another.
    """

    def __init__(self, client: redis.Redis, max_connections: int, patience: float) -> None:
        self._timeout: float | None = client.connection_pool.connection_kwargs.get("socket_timeout")
        self._patience = patience
        self._max_connections = max_connections
        self._closed = False
        self._open(client)
        after_fork(self._forget)

    def _open(self, client: redis.Redis) -> None:
        self.client = client
        self._pool: Any = client.connection_pool
        self._free: list[Any] = []
        self._slots = threading.Semaphore(self._max_connections)

    def _forget(self) -> None:
        # The sockets are the parent's, and so are the threads that hold slots and locks.
        self._open(reopened(self.client))

    def roundtrip(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Send the calls in one write; one reply, or exception, each."""
        if not self._slots.acquire(timeout=self._patience):
            raise redis_errors.ConnectionError("all connections are in use")
        try:
            try:
                connection = self._free.pop()
            except IndexError:
                # It connects with its first call. The pool would connect it now, and keep it when that is interrupted.
                connection = self._pool.make_connection()
            try:
                replies = self._exchange(connection, calls)
            except BaseException:
                # Interrupted between write and read: the next reply would be taken for another's. So it is free only when
                # that is done.
                connection.disconnect()
                self._free.append(connection)
                raise
            self._free.append(connection)
            if self._closed:
                self.reset()
            return replies
        finally:
            self._slots.release()

    def _exchange(self, connection: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        request = packed(calls)
        try:
            if len(request) <= _PIECE or self._timeout is None:
                connection.send_packed_command([request], check_health=False)
            else:
                self._send_in_pieces(connection, request, self._timeout)
            for _ in calls:
                try:
                    # The socket's timeout is for each of its bytes: it begins anew whenever some came.
                    replies.append(connection.read_response())
                except redis_errors.ResponseError as error:
                    replies.append(error)
        except TROUBLE as error:
            raise_if_told(error)
            connection.disconnect()
            # The others of the same server are as dead, most likely; they need not each find out.
            self.reset()
            return _failed(replies, error, len(calls))
        return replies

    def _send_in_pieces(self, connection: Any, request: bytes, timeout: float) -> None:
        """Send a large request, and wait until the last of it has arrived or there is an answer."""
        idle = Idle(time.monotonic(), timeout)

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(request), _PIECE):
                _check(idle, at)
                yield request[at : at + _PIECE]

        connection.send_packed_command(pieces(), check_health=False)
        # The system has taken the last megabytes, and is still sending them.
        while (left := unsent(connection._sock)) and not readable((connection._sock,), timeout / LOOKS):
            _check(idle, -left)

    def reset(self) -> None:
        """Connect anew for the next calls."""
        taken = []
        # Taken first: another thread may take any that is still in the list, and be in the midst of a call.
        with suppress(IndexError):
            while True:
                taken.append(self._free.pop())
        for connection in taken:
            connection.disconnect()
        self._free += taken

    def close(self) -> None:
        """Close all connections; one that is with a caller, after its call."""
        self._closed = True
        self.reset()
        self._pool.disconnect(inuse_connections=False)


def _transport(connection: Any) -> Any:
    """Return what an asyncio connection sends through; None: it has none."""
    return getattr(getattr(connection, "_writer", None), "transport", None)


def _count(connection: Any) -> None:
    """Count what a connection receives from now on: its parser takes it out of the reader's buffer as it comes."""
    reader = connection._reader
    if not isinstance(reader, asyncio.StreamReader):
        return
    counted: Any = reader
    if "received" not in counted.__dict__:
        feed = reader.feed_data

        def feed_data(data: Any) -> None:
            counted.received += len(data)
            feed(data)

        counted.feed_data = feed_data
    counted.received = 0


def _seen(connection: Any) -> object:
    """Return what changes when bytes move on an asyncio connection; None: nothing was received, and all has been sent."""
    transport = _transport(connection)
    if transport is None:
        return None
    received = getattr(connection._reader, "received", 0)
    left = transport.get_write_buffer_size() + unsent(transport.get_extra_info("socket"))
    return (received, left) if received or left else None


class AsyncWire:
    """Connections for one event loop. As `Wire`.

    Args:
        client: Gives connections by its pool.
        max_connections: At a time; more callers wait.
        patience: Seconds that they wait.
    """

    def __init__(self, client: redis.asyncio.Redis, max_connections: int, patience: float) -> None:
        self._pool: Any = client.connection_pool
        self._timeout: float | None = self._pool.connection_kwargs.get("socket_timeout")
        self._patience = patience
        self._closed = False
        self._free: list[Any] = []
        self._slots = asyncio.Semaphore(max_connections)
        #: The exchanges that go on, by their connections; and what became of those that were given up.
        self._going: dict[Any, Idle] = {}
        self._given_up: dict[Any, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: When a byte moved last, in seconds of the loop's clock, as far as was seen. Quick exchanges are not looked at.
        self.moved = 0.0

    async def roundtrip(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Send the calls in one write; one reply, or exception, each."""
        if self._slots.locked():
            try:
                # Not `wait_for`, which in Python 3.11 can swallow a cancellation.
                async with asyncio.timeout(self._patience):
                    await self._slots.acquire()
            except TimeoutError:
                raise redis_errors.ConnectionError("all connections are in use") from None
        else:
            await self._slots.acquire()
        try:
            connection = self._free.pop() if self._free else self._new()
            try:
                replies = await self._exchange(connection, calls)
            except BaseException:
                # Cancelled between write and read: the next reply would be taken for another's.
                await connection.disconnect(nowait=True)
                self._free.append(connection)
                raise
            self._free.append(connection)
            if self._closed:
                await self.reset()
            return replies
        finally:
            self._slots.release()

    def _new(self) -> Any:
        connection = self._pool.make_connection()
        # One watch of ours over all exchanges. redis-py would set a deadline for each step, and on Python 3.11 start a task
        # for each write: the loop would turn twice before what has ended is on its way.
        connection.socket_timeout = None
        return connection

    async def _exchange(self, connection: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        try:
            self._watch(connection)
            await connection.send_packed_command([packed(calls)], check_health=False)
            _count(connection)
            for _ in calls:
                try:
                    replies.append(await connection.read_response())
                except redis_errors.ResponseError as error:
                    replies.append(error)
        except TROUBLE as error:
            verdict = self._given_up.get(connection)
            await connection.disconnect(nowait=True)
            await self.reset()
            return _failed(replies, redis_errors.TimeoutError(verdict) if verdict else error, len(calls))
        finally:
            self._going.pop(connection, None)
            self._given_up.pop(connection, None)
        return replies

    def _watch(self, connection: Any) -> None:
        """Look after an exchange from now on. One timer serves all: to set one for each costs as much as all the rest."""
        if self._timeout is None:
            return
        loop = asyncio.get_running_loop()
        self._going[connection] = Idle(loop.time(), self._timeout)
        if self._timer is None:
            self._timer = loop.call_later(self._timeout / LOOKS, self._look, loop, self._timeout, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        now = loop.time()
        for connection, idle in self._going.items():
            verdict = idle.verdict(now, _seen(connection))
            if idle.moved == now:
                self.moved = now
            if verdict and connection not in self._given_up:
                # Without a transport it still connects, for which redis-py has a timeout.
                transport = _transport(connection)
                if transport is not None:
                    self._given_up[connection] = verdict
                    transport.abort()
        self._timer = loop.call_later(timeout / LOOKS, self._look, loop, timeout, context=Context()) if self._going else None

    async def reset(self) -> None:
        """Connect anew for the next calls."""
        taken, self._free = self._free, []
        for connection in taken:
            await connection.disconnect(nowait=True)
        self._free += taken

    async def aclose(self) -> None:
        """Close all connections; one that is with a caller, after its call."""
        self._closed = True
        if self._timer and not self._going:
            self._timer.cancel()
            self._timer = None
        taken, self._free = self._free, []
        try:
            for connection in taken:
                with suppress(*TROUBLE):
                    await connection.disconnect()
        finally:
            # Also when the caller is cancelled while it waits for one to close.
            self._free += taken
            await self.reset()
        with suppress(*TROUBLE):
            await self._pool.disconnect(inuse_connections=False)
