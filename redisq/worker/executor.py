"""Run deliveries: find the task, call its handler in the loop or in a thread, say how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from random import random
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.task import Task
from redisq.broker.commands import Settlement
from redisq.codec.msgpack import decode
from redisq.errors import DecodeError, EncodeError, MessageTooLarge, UnknownTask
from redisq.redact import error_text
from redisq.worker.consumer import Consumer
from redisq.worker.held import Held
from redisq.worker.threads import ThreadPool
from redisq.worker.verdict import after_failure, after_success, done, unreadable

__all__ = ["Executor"]

#: A lease is extended at most this long past the task's timeout, in seconds.
GRACE = 10.0


class Executor:
    """Starts handlers and reports their ends.

    Args:
        app: Whose tasks they are.
        loop: Where coroutines run.
        threads: Where plain functions run.
        consumer: Told each end once.
        log: The worker's logger.
    """

    def __init__(
        self, app: RedisQ, loop: asyncio.AbstractEventLoop, threads: ThreadPool, consumer: Consumer, log: logging.Logger
    ) -> None:
        self._app = app
        self._loop = loop
        self._threads = threads
        self._consumer = consumer
        self._log = log
        self._max_bytes = app.settings.max_bytes
        self._running: dict[Held, asyncio.Task[None] | None] = {}

    @property
    def running(self) -> int:
        """How many handlers run, or wait for a thread."""
        return len(self._running)

    def start(self, held: Held) -> None:
        """Run one delivery. Never raises: what cannot be run is settled so that it is kept."""
        delivery = held.delivery
        try:
            message = decode(delivery.body, self._max_bytes)
            task = self._app.find_task(message.task)
            args, kwargs = task.shape.revive(message.args, message.kwargs or {})
        except (DecodeError, UnknownTask) as error:
            settlement = unreadable(delivery, error, random)
            level = logging.ERROR if settlement.op == "dead" else logging.WARNING
            self._log.log(level, "Kept message %s of queue %s (%s): %s", delivery.id, held.keys.queue, settlement.op, error)
            self._consumer.ended(held, settlement, 0)
            return
        except TypeError as error:
            self._finish(held, task, time.monotonic(), None, error)
            return
        begin = partial(self._begin, held, task, args, kwargs)
        if task.definition.ack == "early":
            self._consumer.acknowledge_first(held, done(delivery), begin)
        else:
            begin()

    def _begin(self, held: Held, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        started = time.monotonic()
        timeout = task.definition.timeout
        held.until = None if timeout is None else started + timeout + GRACE
        if task.is_async:
            self._running[held] = self._loop.create_task(self._run(held, task, args, kwargs, started))
        else:
            self._running[held] = None
            self._threads.submit(partial(task.handler, *args, **kwargs), partial(self._finish, held, task, started))

    async def _run(self, held: Held, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], started: float) -> None:
        try:
            returned = await task.handler(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit, and a cancellation of the handler's own making
            self._finish(held, task, started, None, error)
        else:
            self._finish(held, task, started, returned, None)

    def _finish(self, held: Held, task: Task[..., Any], started: float, returned: Any, error: BaseException | None) -> None:
        self._running.pop(held, None)
        if not held.leased:
            if error is not None:
                self._log.error(
                    "Task %s[%s] failed, at most once: %s%s", task.name, held.delivery.id, error_text(error), _origin(error)
                )
            self._consumer.leave(held)
            return
        if held.settled:
            return  # given back
        if error is None:
            settlement = self._success(held, task, returned)
        else:
            settlement = after_failure(task.definition, held.delivery, error, random)
            self._report(task, held, settlement, error)
        self._consumer.ended(held, settlement, int((time.monotonic() - started) * 1_000_000))

    def _success(self, held: Held, task: Task[..., Any], returned: Any) -> Settlement:
        try:
            return after_success(task.definition, held.delivery, returned, self._max_bytes)
        except (EncodeError, MessageTooLarge) as error:
            # The handler did its work; running it again would not mend this.
            self._log.error("Task %s[%s] is done, its result is not kept: %s", task.name, held.delivery.id, error)
            return done(held.delivery)

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
        return [held for held in unfinished if held.leased]


def _origin(error: BaseException) -> str:
    """Where it was raised: the last frame, without values. The error's text alone goes through redaction."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next:
        trace = trace.tb_next
    return f" (at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
