"""Ask a server several times a second whether it is there, to know within two seconds when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis import exceptions as redis_errors

from redisq.broker.faults import classify
from redisq.broker.protocol import packed
from redisq.cancelling import end_tasks
from redisq.clocks import monotonic

__all__ = ["INTERVAL", "Pulse"]

#: Seconds between two questions.
INTERVAL = 0.25

_TROUBLE = (redis_errors.RedisError, OSError)


class Pulse:
    """Sends PING on a connection of its own, without waiting for the answer to the one before.

    So a server that takes long for each answer, or is far away, gives as many of them as one that is near.

    Args:
        client: Gives the connection, by its pool.
        now: Monotonic seconds.

    Attributes:
        answered: Monotonic seconds of the last answer; of the start, before the first one.
    """

    def __init__(self, client: redis.asyncio.Redis, now: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._now = now
        self.answered = now()

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                try:
                    await self._ask()
                except _TROUBLE:
                    await asyncio.sleep(INTERVAL)
        finally:
            await self._client.aclose()

    async def _ask(self) -> None:
        pool: Any = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            reader = asyncio.create_task(self._read(connection))
            try:
                while not reader.done():
                    await connection.send_packed_command([packed([("PING",)])], check_health=False)
                    await self._sleep()
                reader.result()
            finally:
                await end_tasks((reader,))
        finally:
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _sleep(self) -> None:
        before = self._now()
        await asyncio.sleep(INTERVAL)
        if (now := self._now()) - before > 2 * INTERVAL:
            # This process was frozen, or got no core: what the server said meanwhile is still to be read.
            self.answered = max(self.answered, now - INTERVAL)

    async def _read(self, connection: Any) -> None:
        while True:
            try:
                await connection.read_response()
            except redis_errors.ResponseError as error:
                # "You may not" is an answer; "I am still loading" is none.
                if classify(error).retry:
                    continue
            self.answered = self._now()
