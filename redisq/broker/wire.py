"""Write calls, read their replies: on redis-py's connections, without its clients.

redis-py connects, logs in, does TLS and parses. Its clients are left out of the way: for each command they take a
connection from the pool, poll its socket, pass retry and telemetry wrappers and give it back, which costs more than the
command. A wire keeps its connections, and packs calls itself: redis-py looks at each argument three times.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import redis
import redis.asyncio
from redis import exceptions as redis_errors

from redisq.broker.forks import after_fork, reopened

__all__ = ["AsyncWire", "Wire"]

_TROUBLE = (redis_errors.RedisError, OSError)


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
                connection = self._pool.get_connection()
            try:
                return self._exchange(connection, calls)
            except BaseException:
                # Interrupted between write and read: the next reply would be taken for another's.
                connection.disconnect()
                raise
            finally:
                self._free.append(connection)
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
        except _TROUBLE as error:
            connection.disconnect()
            # The others of the same server are as dead, most likely; they need not each find out.
            self.reset()
            return _failed(replies, error, len(calls))
        return replies

    def reset(self) -> None:
        """Connect anew for the next calls."""
        for connection in list(self._free):
            connection.disconnect()

    def close(self) -> None:
        """Close all connections."""
        self.reset()
        self.client.close()


class AsyncWire:
    """Connections for one event loop.

    Args:
        client: Gives connections by its pool.
        max_connections: At a time; more callers wait.
        patience: Seconds that they wait.
    """

    def __init__(self, client: redis.asyncio.Redis, max_connections: int, patience: float) -> None:
        self._client = client
        self._pool: Any = client.connection_pool
        self._timeout: float | None = self._pool.connection_kwargs.get("socket_timeout")
        self._patience = patience
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
            connection = self._free.pop() if self._free else await self._new()
            try:
                return await self._exchange(connection, calls)
            except BaseException:
                # Cancelled between write and read: the next reply would be taken for another's.
                await connection.disconnect(nowait=True)
                raise
            finally:
                self._free.append(connection)
        finally:
            self._slots.release()

    async def _new(self) -> Any:
        connection = await self._pool.get_connection()
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
        except _TROUBLE as error:
            if isinstance(error, TimeoutError):
                error = redis_errors.TimeoutError(str(error) or f"no answer within {self._timeout} s")
            await connection.disconnect(nowait=True)
            await self.reset()
            return _failed(replies, error, len(calls))
        return replies

    async def reset(self) -> None:
        """Connect anew for the next calls."""
        for connection in list(self._free):
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in self._free:
            await connection.disconnect()
        await self._client.aclose()
