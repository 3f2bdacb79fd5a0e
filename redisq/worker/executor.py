"""Run deliveries: find the task, call its handler in the loop or in a thread, say how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from random import random
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.task import Task
from redisq.broker.commands import Settlement
from redisq.codec.msgpack import decode
from redisq.errors import DecodeError, UnknownTask
from redisq.message import Message
from redisq.redact import error_text
from redisq.worker.held import Held
from redisq.worker.threads import ThreadPool
from redisq.worker.verdict import after_failure, unreadable

__all__ = ["Executor"]

#: A lease is extended at most this long past the task's timeout, in seconds.
GRACE = 10.0

Ended = Callable[[Held, Settlement, int], None]


class Executor:
    """Starts handlers and reports their ends.

    Args:
        app: Whose tasks they are.
        loop: Where coroutines run.
        threads: Where plain functions run.
        ended: Told each end once: the delivery, its settlement, and the microseconds that it took.
        log: The worker's logger.
    """

    def __init__(
        self, app: RedisQ, loop: asyncio.AbstractEventLoop, threads: ThreadPool, ended: Ended, log: logging.Logger
    ) -> None:
        self._app = app
        self._loop = loop
        self._threads = threads
        self._ended = ended
        self._log = log
        self._running: dict[Held, asyncio.Task[None] | None] = {}

    @property
    def running(self) -> int:
        """How many handlers run, or wait for a thread."""
        return len(self._running)

    def start(self, held: Held) -> None:
        """Run one delivery. Never raises: what cannot be run is settled so that it is kept."""
        delivery = held.delivery
        try:
            message = decode(delivery.body)
            task = self._app.find_task(message.task)
        except (DecodeError, UnknownTask) as error:
            settlement = unreadable(delivery, error, random)
            level = logging.ERROR if settlement.op == "dead" else logging.WARNING
            self._log.log(level, "Kept message %s of queue %s (%s): %s", delivery.id, held.keys.queue, settlement.op, error)
            self._ended(held, settlement, 0)
            return
        started = time.monotonic()
        timeout = task.definition.timeout
        held.until = None if timeout is None else started + timeout + GRACE
        if task.is_async:
            self._running[held] = self._loop.create_task(self._run(held, task, message, started))
        else:
            self._running[held] = None
            handler = partial(task.handler, *message.args, **(message.kwargs or {}))
            self._threads.submit(handler, partial(self._finish, held, task, started))

    async def _run(self, held: Held, task: Task[..., Any], message: Message, started: float) -> None:
        try:
            await task.handler(*message.args, **(message.kwargs or {}))
        except asyncio.CancelledError as error:
            # Cancelled by its own doing counts as a failure; by `give_back` it was settled already.
            self._finish(held, task, started, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a handler does not end the worker
            self._finish(held, task, started, error)
        else:
            self._finish(held, task, started, None)

    def _finish(self, held: Held, task: Task[..., Any], started: float, error: BaseException | None) -> None:
        self._running.pop(held, None)
        if held.settled:
            return
        delivery = held.delivery
        if error is None:
            settlement = Settlement("ack", delivery.id, delivery.fence)
        else:
            settlement = after_failure(task.definition, delivery, error, random)
            self._report(task, held, settlement, error)
        self._ended(held, settlement, int((time.monotonic() - started) * 1_000_000))

    def _report(self, task: Task[..., Any], held: Held, settlement: Settlement, error: BaseException) -> None:
        attempt, attempts = held.delivery.meta.attempt, task.definition.max_retries + 1
        where = _origin(error)
        if settlement.op == "retry":
            self._log.warning(
                "Task %s[%s] failed, attempt %d of %d, again in %.1f s: %s%s",
                task.name, held.delivery.id, attempt, attempts, settlement.delay / 1_000_000, error_text(error), where,
            )  # fmt: skip
        else:
            self._log.error(
                "Task %s[%s] failed, attempt %d of %d, now a dead letter: %s%s",
                task.name, held.delivery.id, attempt, attempts, error_text(error), where,
            )  # fmt: skip

    def give_back(self) -> list[Held]:
        """Cancel what runs in the loop, and return all that is not finished; their ends are not reported any more.

        A thread cannot be stopped: its handler runs on until the process ends.
        """
        unfinished = dict(self._running)
        for held, running in unfinished.items():
            held.settled = True
            if running:
                running.cancel()
        return list(unfinished)


def _origin(error: BaseException) -> str:
    """Where it was raised: the last frame, without values. The error's text alone goes through redaction."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next:
        trace = trace.tb_next
    return f" (at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
