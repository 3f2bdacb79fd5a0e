"""What handlers say of their progress, on its way to Redis: the last word of each job, twice a second at most."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress

from redisq.app.progress import KEPT, Progress
from redisq.broker.commands import MAX_BATCH, keep_progress
from redisq.broker.connector import AsyncConnector
from redisq.broker.keys import QueueKeys
from redisq.cancelling import end_tasks
from redisq.errors import BrokerError
from redisq.words import counted

__all__ = ["Board"]

#: Seconds between two writes.
INTERVAL = 0.5

#: Seconds for the last words when the worker ends.
LAST_WRITE = 1.0


class Board:
    """Takes progress from any thread and writes it in the worker's loop. Never waits, never fails a job.

    Args:
        connector: The worker's.
        loop: Where it writes.
        log: The worker's logger.
    """

    def __init__(self, connector: AsyncConnector, loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
        self._connector = connector
        self._loop = loop
        self._log = log
        self._lock = threading.Lock()
        self._latest: dict[tuple[QueueKeys, str], Progress] = {}
        self._awake = False
        self._writer: asyncio.Task[None] | None = None

    def post(self, keys: QueueKeys, job_id: str, progress: Progress) -> None:
        """Take the last word of a job. Safe to call from any thread."""
        with self._lock:
            self._latest[keys, job_id] = progress
            asleep, self._awake = not self._awake, True
        if asleep:
            # A thread that the worker left behind when it ended may still talk.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._writer = self._loop.create_task(self._write_while_there_is_something())

    async def _write_while_there_is_something(self) -> None:
        while True:
            if not await self._write():
                return
            await asyncio.sleep(INTERVAL)

    async def _write(self) -> bool:
        """Write what is there; False: there was nothing, and the next word has to wake the writer."""
        with self._lock:
            latest, self._latest = self._latest, {}
            self._awake = bool(latest)
        commands = [keep_progress(keys, job_id, progress.packed(), KEPT) for (keys, job_id), progress in latest.items()]
        for at in range(0, len(commands), MAX_BATCH):
            try:
                results = await self._connector.execute_many(commands[at : at + MAX_BATCH])
            except BrokerError as error:
                results = [error]
            refused = [result for result in results if isinstance(result, BrokerError)]
            if refused:
                self._log.warning("The progress of %s was not kept: %s", counted(len(refused), "job"), refused[0])
        return bool(commands)

    async def aclose(self) -> None:
        """Write the last words, if Redis takes them at once."""
        if self._writer:
            await end_tasks((self._writer,))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                await self._write()
