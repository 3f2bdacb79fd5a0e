"""Write calls, read their replies: on redis-py's connections, without its clients.

redis-py connects, logs in, does TLS and parses. Its clients are left out of the way: for each command they take a
connection from the pool, poll its socket, pass retry and telemetry wrappers and give it back, which costs more than the
command. A wire keeps its connections, and packs calls itself: redis-py looks at each argument three times.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as redis_errors

from redisq.broker.faults import TROUBLE, raise_if_told
from redisq.broker.forks import after_fork, reopened

__all__ = ["AsyncWire", "Wire"]


def packed(calls: list[tuple[Any, ...]]) -> bytes:
    """Return calls as the protocol has them: arrays of bulk strings. Arguments are bytes, text or whole numbers."""
    parts = []
    for call in calls:
        parts.append(b"*%d\r\n" % len(call))
        for argument in call:
            value = argument if type(argument) is bytes else str(argument).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)


def _failed(replies: list[Any], error: Exception, wanted: int) -> list[Any]:
    """What was read counts; the rest has the error."""
    return replies + [error] * (wanted - len(replies))


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
        try:
            connection.send_packed_command([packed(calls)], check_health=False)
            for _ in calls:
                try:
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
        # One deadline of ours over a whole exchange. redis-py would set one for each step, and on Python 3.11 start a task
        # for each write: the loop would turn twice before what has ended is on its way.
        connection.socket_timeout = None
        return connection

    async def _exchange(self, connection: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command([packed(calls)], check_health=False)
                for _ in calls:
                    try:
                        replies.append(await connection.read_response())
                    except redis_errors.ResponseError as error:
                        replies.append(error)
        except TROUBLE as error:
            if isinstance(error, TimeoutError):
                error = redis_errors.TimeoutError(str(error) or f"no answer within {self._timeout} s")
            await connection.disconnect(nowait=True)
            await self.reset()
            return _failed(replies, error, len(calls))
        return replies

    async def reset(self) -> None:
        """Connect anew for the next calls."""
        taken, self._free = self._free, []
        for connection in taken:
            await connection.disconnect(nowait=True)
        self._free += taken

    async def aclose(self) -> None:
        """Close all connections; one that is with a caller, after its call."""
        self._closed = True
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
