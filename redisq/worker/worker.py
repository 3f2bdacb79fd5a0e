"""The worker: wires the loops together, starts them, drains them."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from redisq.app.app import RedisQ
from redisq.app.spelling import known_options
from redisq.app.task import Task
from redisq.app.waiting import arun
from redisq.broker.commands import Settlement, declare, settle
from redisq.broker.connection import BLOCK_SECONDS
from redisq.broker.connector import AsyncConnector, Patience
from redisq.broker.gates import define_limits
from redisq.cancelling import end_tasks
from redisq.clocks import monotonic
from redisq.errors import BrokerFull, ConfigError
from redisq.logs import get_logger
from redisq.message import new_id
from redisq.troubles import Troubles
from redisq.types import check_name
from redisq.words import counted
from redisq.worker.board import Board
from redisq.worker.clean import CleanLoop
from redisq.worker.consumer import Consumer, refused
from redisq.worker.control import SIGN_OFF, Answer, Control
from redisq.worker.executor import Executor
from redisq.worker.exits import Exit
from redisq.worker.fitness import NO_LIMITS, Fitness, Limits
from redisq.worker.health import Address, Health
from redisq.worker.observers import Observers
from redisq.worker.outage import Outage
from redisq.worker.processes import ProcessPool
from redisq.worker.readiness import Readiness
from redisq.worker.renewer import Renewer
from redisq.worker.rooms import Place, Rooms
from redisq.worker.threads import ThreadPool
from redisq.worker.turns import Turns
from redisq.worker.watchdog import Watchdog

__all__ = ["Worker"]

#: Seconds for the last settlements to reach Redis when all is over.
LAST_TRIP = 5.0

#: Tasks that are named in the log when a worker begins.
MAX_LISTED = 20

#: The same when it was told to stop now; none when Redis is away.
HASTY_TRIP = 1.0


class Worker:
    """Runs the tasks of one app in the running event loop.

    Either `await worker.run()`, or beside other code, such as a bot's own loop:

        async with Worker(app):
            ...

    which waits until Redis has answered, and drains and ends the worker at the end of the block. An error of the first
    contact (a wrong password, say) is raised before the block begins. When the worker fails later, the block is cancelled, and the
    worker's error is raised from it.

    Args:
        app: Whose tasks.
        queues: In the order in which they are served; else those that the app's tasks are sent to.
        concurrency: Messages at a time, when the app has an async handler.
        threads: Threads for sync handlers; messages at a time, when all handlers are sync.
        processes: Child processes for tasks with `pool="process"`; else as many as there are cores.
        burst: End when the queues are empty.
        shutdown_timeout: Seconds that running handlers get after `stop`.
        name: The name that leases are written to; else host, process and a random part.
        limits: When this process is not fit any more, and drains and ends for another.
        health: Answer `GET /live` and `GET /ready` at this host and port, or Unix socket, while it runs.
        own_signals: Ctrl-C raises nothing in this process, so a `KeyboardInterrupt` is a handler's own failure, like any
            other that it raises.

    Attributes:
        exit: Why it ended, once it has.
        ready: Set when Redis has answered, and messages are claimed from then on.

    Raises:
        ConfigError: The app has no task, a number or name is not valid, or two tasks give one limit two rules.
    """

    @known_options("Worker", lambda _: {})
    def __init__(
        self,
        app: RedisQ,
        *,
        queues: Sequence[str] = (),
        concurrency: int = 100,
        threads: int = 10,
        processes: int | None = None,
        burst: bool = False,
        shutdown_timeout: float = 25.0,
        name: str | None = None,
        limits: Limits = NO_LIMITS,
        health: Address | None = None,
        own_signals: bool = False,
    ) -> None:
        if not app.tasks:
            raise ConfigError(f"app {app.name} has no task: decorate a function with @app.task, and import its module")
        if concurrency < 1 or threads < 1 or shutdown_timeout < 0:
            raise ConfigError(f"concurrency={concurrency}, threads={threads}: want 1 at least; shutdown_timeout: 0 s at least")
        self._app = app
        self._queues = [app.keys(queue) for queue in dict.fromkeys(queues or app.queues)]
        for keys in self._queues:
            app.limits_of(keys.queue)
        self._concurrency = concurrency
        self._threads = threads
        self._processes = processes or os.cpu_count() or 1
        self._burst = burst
        self._shutdown_timeout = shutdown_timeout
        self._limits = limits
        self._health = health
        self._own_signals = own_signals
        self.ready = asyncio.Event()
        self.exit = Exit.ASKED
        self._started = round(time.time())
        self.name = check_name("worker", name or f"{_host()}-{os.getpid()}-{new_id()[:4]}")
        self.log = get_logger(f"{app.name}.worker")
        self._stopped = asyncio.Event()
        self._hurry = asyncio.Event()
        self._asked = False
        #: Monotonic seconds; for ever until it is asked to stop.
        self._ends_at = math.inf
        self._beside: asyncio.Task[None] | None = None
        self._cancelled_owner = False

    async def __aenter__(self) -> Self:
        owner = asyncio.current_task()
        self._beside = asyncio.create_task(self.run(), name=f"redisq worker {self.name}")
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait((self._beside, ready), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await end_tasks((self._beside,))
            raise
        finally:
            ready.cancel()
        if self._beside.done():
            self._beside.result()
        self._beside.add_done_callback(lambda done: self._cancel_if_failed(done, owner))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cancelled_owner and (owner := asyncio.current_task()):
            owner.uncancel()
        if not self._stopped.is_set():
            self.stop()
        if self._beside:
            await self._beside

    def _cancel_if_failed(self, done: asyncio.Task[None], owner: asyncio.Task[Any] | None) -> None:
        """The code in the block would wait for ever for a worker that is no more."""
        failed = not done.cancelled() and done.exception() is not None
        if failed and owner and not self._stopped.is_set():
            self._cancelled_owner = owner.cancel()

    def stop(self) -> None:
        """Stop claiming, let handlers finish within the shutdown timeout, give the rest back. A second call: now."""
        if self._asked:
            self._hurry.set()
        self._asked = True
        # What it is asked to do counts, when it was about to end for another by itself.
        self.exit = Exit.ASKED
        self._stopped.set()

    def _about(self, executor: Executor, rooms: Rooms) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "app": self._app.name,
            "queues": [keys.queue for keys in self._queues],
            "slots": rooms.slots,
            "running": executor.running,
            "ended": executor.ended,
            "started": self._started,
        }

    def _answers(self, executor: Executor) -> dict[str, Answer]:
        return {
            "ping": lambda _: True,
            "running": lambda _: executor.report(),
            # Not here: no answer, so that the one worker that runs it is heard.
            "cancel": lambda arguments: executor.cancel(str(arguments.get("id"))) or None,
            "shutdown": lambda _: self._shut_down(),
        }

    @property
    def tasks_in_words(self) -> str:
        """The names of the tasks, for a line of the log: the first of many."""
        names = sorted(self._app.tasks)
        more = len(names) - MAX_LISTED
        return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")

    def _shut_down(self) -> bool:
        self.log.info("Worker %s was asked to stop", self.name)
        self.stop()
        return True

    def _recycle(self, reason: str) -> None:
        """End by itself. Not a call of `stop`: while it drains, that would cut its handlers short."""
        if self._stopped.is_set():
            return
        self.log.info("Worker %s ends for another: %s", self.name, reason)
        self.exit = Exit.RECYCLE
        self._stopped.set()

    async def run(self) -> None:
        """Work until `stop`, or until the queues are empty in a burst.

        Raises:
            BrokerError: The first contact showed that this cannot work: a wrong password, a queue of another program ...
            ConfigError: It cannot listen for health checks.
        """
        server, outage = self._app.server, Outage(self.log)
        forever = Patience(seconds=None)
        connector = server.async_connector("worker", patience=forever, observer=outage.line())
        blocking = server.async_connector("worker-idle", patience=forever, observer=outage.line(), block=BLOCK_SECONDS)
        troubles = Troubles(self.log)
        pulse = server.pulse()
        readiness = Readiness(outage, lambda: pulse.answered, self._stopped.is_set, lambda: refused(self._queues, troubles))
        health = Health(self._health, readiness.reports, self.log, pulse.run) if self._health else None
        try:
            await self._until_stopped(self._first_contact(connector))
            if self._stopped.is_set():
                return
            # Each run starts in a copy of the context of now.
            loop = CleanLoop(asyncio.get_running_loop())  # type: ignore[abstract]  # a worker needs no more of it
            settings = self._app.settings
            threads = ThreadPool(loop, self._threads)
            processes = ProcessPool(loop, self._processes, settings.max_bytes, settings.jitter)
            rooms = Rooms(partial(self._places, threads, processes))
            board, observers = Board(connector, loop, self.log), Observers(self._app.hooks, self._own_signals, loop.context)
            quarantine = ProcessPool(loop, 1, settings.max_bytes, settings.jitter)
            consumer = Consumer(
                connector,
                blocking,
                self._queues,
                worker=self.name,
                rooms=rooms,
                lease=settings.lease,
                max_crashes=settings.max_deliveries,
                in_burst=self._burst,
                has_room=lambda: turns.has_room(quarantine),
                start=lambda held: executor.start(held),
                observers=observers,
                troubles=troubles,
                log=self.log,
                loop=loop,
            )
            turns = Turns(lambda held: executor.put_off(held), lambda held, why: executor.not_started(held, why), loop)
            executor = Executor(
                self._app, loop, threads, processes, quarantine, turns, consumer, self.name, board, observers, self.log
            )  # fmt: skip
            executor.own_signals = self._own_signals
            patience = Patience(seconds=min(server.timeout, settings.lease / 3_000_000))
            renewer = Renewer(
                server.connector("worker-renewer", patience=patience),
                settings.lease,
                consumer.held,
                executor.lose,
                executor.call_off,
                loop,
                troubles,
                self.log,
            )
            watchdog = readiness.watchdog = Watchdog(loop, executor.hard_limit, self.log)
            fitness = Fitness(self._limits, loop, lambda: executor.ended, lambda: executor.leaks, self._recycle)
            if fitness.share:
                executor.count(fitness.share, fitness.look)
            about, answers = partial(self._about, executor, rooms), self._answers(executor)
            control = Control(connector, self._app.registry, self.name, about, answers, troubles, self.log)
            unwatch = self._app.watch_tasks(partial(_tasks_changed, rooms, consumer, loop))
            rooms.tasks_changed()  # before it was watched, in another thread
            renewer.start()
            control.start()
            watchdog.start()
            fitness.start()
            try:
                await self._work(consumer, rooms)
                await self._drain(consumer, executor, outage)
            finally:
                await control.stop(0.0 if outage.is_away else min(SIGN_OFF, self._left(0.0)))
                fitness.stop()
                watchdog.stop()
                renewer.stop()
                unwatch()
                turns.close()
                threads.close()
                processes.close()
                quarantine.close()
                await board.aclose()
                await consumer.abort()
        finally:
            if health:
                health.stop()
            await connector.aclose()
            await blocking.aclose()

    def _places(self, threads: ThreadPool, processes: ProcessPool) -> list[Place]:
        apart: list[Task[..., Any]] = []
        plain: list[Task[..., Any]] = []
        others: list[Task[..., Any]] = []
        for task in self._app.tasks.values():
            (apart if task.definition.pool == "process" else others if task.is_async else plain).append(task)
        # Acked before it begins: while it waited, nobody could give it back, and with the worker it would be gone.
        early = [task for task in plain if task.definition.ack == "early"]
        most = max(0, self._concurrency - self._threads)
        return [
            Place("loop", self._concurrency, _names(others), _none),
            Place("threads", self._threads, _names(plain), lambda: min(threads.ahead(), most), _names(early)),
            Place("processes", processes.size, _names(apart), _none),
        ]

    async def _first_contact(self, connector: AsyncConnector) -> None:
        for keys in self._queues:
            # This reads, and refuses a queue of another program. It also loads the script, since Redis must not carry out a
            # claim when it refuses the settlements in front of it.
            await connector.execute(settle(keys, ()))
        for keys in self._queues:
            # An operator can pause a queue as soon as its worker is ready, also before its first message.
            with suppress(BrokerFull):  # the first claim reports it, and the worker waits until Redis accepts writes
                await connector.execute(declare(keys, if_new=True))
            await arun(define_limits(keys, self._app.limits_of(keys.queue), self._app.group_of(keys.queue)), connector)

    async def _until_stopped(self, work: Awaitable[None]) -> None:
        """Await the work, or `stop`, whichever is first."""
        task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stopped.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()

    async def _work(self, consumer: Consumer, rooms: Rooms) -> None:
        self.log.info("Initialized Redis connection")
        for keys in self._queues:
            shown = "chat API" if keys.queue == "chat_api" else keys.queue
            self.log.info("Started %s queue processor", shown)
        self.log.info("Worker %s is ready: %s, %s", self.name, counted(rooms.slots, "slot"), self.tasks_in_words)
        consumer.pump()
        self.ready.set()
        if self._burst:
            await self._until_stopped(self._exhausted(consumer))
        else:
            await self._stopped.wait()

    async def _exhausted(self, consumer: Consumer) -> None:
        while not consumer.exhausted:
            consumer.idle.clear()
            await consumer.idle.wait()

    async def _drain(self, consumer: Consumer, executor: Executor, outage: Outage) -> None:
        consumer.stop()
        executor.leave_lost_slots()
        if executor.unfinished:
            have = counted(executor.unfinished, "handler has", "handlers have")
            self.log.info("Stopping: %s %g s to finish", have, self._shutdown_timeout)
        self._ends_at = monotonic() + self._shutdown_timeout
        # Without a handler: for the last settlements, and at least so long that a Redis that answers can take them.
        patience = self._shutdown_timeout if executor.unfinished else max(HASTY_TRIP, min(LAST_TRIP, self._shutdown_timeout))
        await self._first(patience, consumer.idle.wait(), self._hurry.wait())
        unfinished = executor.give_back()
        for held in unfinished:
            consumer.ended(held, Settlement("release", held.delivery.id, held.delivery.fence), 0)
        if not self._hurry.is_set():
            # Not longer than the stop time, or who stops the worker kills it.
            last = self._left(0.0 if outage.is_away else HASTY_TRIP)
            await self._first(min(LAST_TRIP, last), consumer.idle.wait(), self._hurry.wait())
        if self._hurry.is_set() and not outage.is_away:
            await self._first(HASTY_TRIP, consumer.idle.wait())
        # What is held without a lease was settled before its handler ended.
        left = [held.leased for held in consumer.held()]
        if leases := sum(left):
            self.log.warning("Stopped without an answer from Redis: the leases of %s will expire", counted(leases, "message"))
            return
        given = counted(len(unfinished), "message")
        if left:
            self.log.warning("Stopped, gave %s back, %s did not end", given, counted(len(left), "handler"))
        else:
            self.log.info("Stopped, gave %s back", given)

    def _left(self, least: float) -> float:
        """Return the seconds that are left of the stop time, but no fewer than the least."""
        return max(least, self._ends_at - monotonic())

    async def _first(self, seconds: float, *events: Coroutine[Any, Any, Any]) -> None:
        tasks = [asyncio.ensure_future(event) for event in events]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


def _tasks_changed(rooms: Rooms, consumer: Consumer, loop: CleanLoop) -> None:
    """A task was registered, in any thread: there may be room for what waits."""
    rooms.tasks_changed()
    with suppress(RuntimeError):  # the loop was closed just now
        loop.call_soon_threadsafe(consumer.pump)


def _names(tasks: Sequence[Task[..., Any]]) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)


def _none() -> int:
    return 0


def _host() -> str:
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "-" for letter in socket.gethostname()
    )[:64]
