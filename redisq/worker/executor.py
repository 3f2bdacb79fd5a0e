"""Run deliveries: find the task, call its handler in the loop or in a thread, say how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from functools import cached_property, partial
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.calling import Unfinished, acall, awaited, call
from redisq.app.context import begin_run
from redisq.app.task import Task
from redisq.backoff import jitter_of
from redisq.broker.commands import SUSPECT, Settlement, given_back
from redisq.clocks import monotonic
from redisq.codec.msgpack import decode
from redisq.errors import ConfigError, DecodeError, SoftTimeout, TaskCancelled, UnknownTask
from redisq.message import Delivery, check_id
from redisq.redact import error_text
from redisq.words import counted
from redisq.worker.board import Board
from redisq.worker.clean import CleanLoop
from redisq.worker.consumer import Consumer
from redisq.worker.frames import origin, stack
from redisq.worker.held import Held
from redisq.worker.judge import Judge
from redisq.worker.observers import Observers
from redisq.worker.places import Home, home_of, place_of
from redisq.worker.processes import ProcessPool
from redisq.worker.run import Phase, Run
from redisq.worker.threads import Item, ThreadPool
from redisq.worker.timeouts import Timeouts
from redisq.worker.turns import Turns
from redisq.worker.verdict import NOT_IMPORTABLE, after_crash, done, not_begun, suspected, unreadable

__all__ = ["Executor"]


#: What a handler that was told to stop ends with.
_TOLD = (asyncio.CancelledError, SoftTimeout, TaskCancelled)


class Executor:
    """Starts handlers and reports their ends.

    Args:
        app: Whose tasks they are.
        loop: Where coroutines run, each in a fresh copy of the worker's context.
        threads: Where plain functions run.
        processes: Where tasks with `pool="process"` run.
        quarantine: Where a message runs that was there when a worker died, twice: alone, so that no innocent dies with it.
        turns: Begins what needs a thread or a process, when there is one.
        consumer: Told each end once.
        worker: The worker's name.
        board: Where handlers' progress goes.
        observers: Told of leases that were lost.
        log: The worker's logger.
    """

    def __init__(
        self,
        app: RedisQ,
        loop: CleanLoop,
        threads: ThreadPool,
        processes: ProcessPool,
        quarantine: ProcessPool,
        turns: Turns,
        consumer: Consumer,
        worker: str,
        board: Board,
        observers: Observers,
        log: logging.Logger,
    ) -> None:
        self._app = app
        self._hooks = app.hooks
        self._worker = worker
        self._board = board
        self._observers = observers
        self._loop = loop
        self._threads = threads
        self._processes = processes
        self._quarantine = quarantine
        self._turns = turns
        self._consumer = consumer
        self._log = log
        self._max_bytes = app.settings.max_bytes
        #: Handlers that have ended since the start.
        self.ended = 0
        self._share = 0
        self._share_done: Callable[[], object] = _nothing
        #: Whether a `KeyboardInterrupt` can only be a handler's own.
        self.own_signals = False
        self._random = jitter_of(app.settings.jitter)
        self._judge = Judge(app, self._random, log)
        self._running: dict[Held, Run] = {}
        #: Tasks that a process of its own did not find, and why: they run here.
        self._only_here: dict[str, str] = {}
        self._timeouts = Timeouts(loop, threads, self._running.values, self._abandon, log)

    def count(self, share: int, done: Callable[[], object]) -> None:
        """Call it when so many handlers have ended."""
        self._share, self._share_done = share, done

    @property
    def running(self) -> int:
        """How many handlers run, or wait for a thread."""
        return len(self._running)

    @property
    def unfinished(self) -> int:
        """How many of them a drain waits for."""
        return self.running - self.leaks

    @property
    def leaks(self) -> int:
        """How many slots are lost, for now, to handlers that do not stop."""
        return sum(run.phase is Phase.ABANDONED for run in self._running.values())

    def hard_limit(self) -> float | None:
        """Until when a coroutine may block the loop, in monotonic seconds; None: for ever. Safe to call from a thread."""
        runs, current = list(self._running.values()), asyncio.current_task(self._loop.bare)
        # The one whose step does not end; else, as a handler may have made tasks of its own, any of them.
        limits = [run.held.until for run in runs if run.coroutine is current] if current else []
        limits = limits or [run.held.until for run in runs if run.coroutine]
        ends = [limit for limit in limits if limit is not None]
        return max(ends) if ends and len(ends) == len(limits) else None

    def start(self, held: Held) -> None:
        """Run one delivery. Never raises: what cannot be run is settled so that it is kept."""
        try:
            self._start(held)
        except Exception as error:  # noqa: BLE001 - no thread or process can be started, say
            self.not_started(held, error_text(error))

    def _start(self, held: Held) -> None:
        delivery = held.delivery
        # All code of the app that this run calls runs in here, from the making of its arguments to the verdict.
        context = self._loop.context()
        try:
            if not delivery.id.isascii():
                check_id(delivery)
            message = decode(delivery.body, self._max_bytes)
            task = self._app.find_task(message.task)
            held.task = message.task
            # Plain arguments pass as they come: no code of the app makes them.
            args, kwargs = task.arguments(message) if task.shape.plain else context.run(task.arguments, message)
        except (DecodeError, UnknownTask) as error:
            settlement = unreadable(delivery, error, self._random)
            self._judge.report_not_begun(held, settlement, str(error))
            self._consumer.ended(held, settlement, 0)
            return
        if task.definition.pool == "process" and (why := self._bound_here(task)):
            settlement = not_begun(delivery, NOT_IMPORTABLE, why, self._random)
            self._judge.report_not_begun(held, settlement, why)
            self._consumer.ended(held, settlement, 0)
            return
        if delivery.meta.crashes and (poison := self._refuse_poison(task, delivery)):
            self._consumer.ended(held, poison, 0)
            return
        if task.definition.ack == "early":
            then = partial(self._begin_acknowledged, held, task, args, kwargs, context)
            self._consumer.acknowledge_first(held, done(delivery), then)
        else:
            self._begin(held, task, args, kwargs, context)

    def not_started(self, held: Held, why: str) -> None:
        """Give back one that cannot begin, for another worker or a later try."""
        self._running.pop(held, None)
        then = "it goes back to the queue" if held.leased else "it is lost, since it was acknowledged first"
        self._log.error("Could not start message %s of queue %s, %s: %s", held.delivery.id, held.keys.queue, then, why)
        if held.leased:
            self._consumer.rest(held.keys)
            self._consumer.ended(held, given_back(held.delivery), 0)
        else:
            self._consumer.leave(held)
        self._turns.look()

    def put_off(self, held: Held) -> None:
        """Give back one that would have to wait, for who has room for it."""
        self._running.pop(held, None)
        self._log.debug("Message %s of queue %s goes back: there is no room for it", held.delivery.id, held.keys.queue)
        self._consumer.ended(held, given_back(held.delivery), 0)

    def _begin_acknowledged(
        self, held: Held, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], context: Context
    ) -> None:
        try:
            self._begin(held, task, args, kwargs, context)
        except Exception as error:  # noqa: BLE001 - as in `start`; it is not in Redis any more
            self.not_started(held, error_text(error))

    def _begin(self, held: Held, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], context: Context) -> None:
        run = Run(held, task, self._worker, self._board)
        crashes = held.delivery.meta.crashes
        if crashes or task.definition.pool == "process":
            run.apart = self._pool_of(run)
        if run.apart is self._quarantine:
            self._log.warning(
                "Task %s[%s] was there when %s died: it runs apart", task.name, held.delivery.id, counted(crashes, "worker")
            )
        self._running[held] = run
        if run.apart:
            self._turns.wait(run.apart, run.apart.request(run, place_of(task, self._home), self._hooks_at, self._finish_apart))
        elif not task.is_async:
            handler = partial(call, self._hooks, task, run.context, args, kwargs)
            self._turns.wait(self._threads, Item(run, handler, self._finish, context))
        else:
            run.begin()
            run.coroutine = self._loop.bare.create_task(self._run(run, args, kwargs), context=context)
        self._timeouts.watch()

    @cached_property
    def _home(self) -> Home | None:
        """Where a child process finds the app; None: it cannot."""
        return home_of(self._app.original)

    @cached_property
    def _hooks_at(self) -> Home | None:
        """Where it finds the app for its hooks; None: nobody needs that, or it cannot."""
        if self._hooks.run and not self._home:
            self._log.warning("The middleware's run hooks are not called in child processes: the app is no global of a module")
        return self._home if self._hooks.run else None

    def _refuse_poison(self, task: Task[..., Any], delivery: Delivery) -> Settlement | None:
        """What crashed too often, and would take this worker with it once more, is not run again."""
        crashes = delivery.meta.crashes
        if crashes < SUSPECT or task.definition.pool == "process" or not (why := self._bound_here(task)):
            return None
        self._log.warning("Message %s may have killed %s, and cannot run apart: %s", delivery.id, counted(crashes, "worker"), why)
        return suspected(delivery, why) if crashes >= self._app.settings.max_deliveries else None

    def _bound_here(self, task: Task[..., Any]) -> str:
        """Why no other process can run it; empty if one can, as far as that is known."""
        try:
            place_of(task, self._home)
        except ConfigError as error:
            return str(error)
        return self._only_here.get(task.name, "")

    def _pool_of(self, run: Run) -> ProcessPool | None:
        """The processes in which it has to run; None: in this one."""
        if run.task.definition.pool == "process":
            return self._processes
        if run.held.delivery.meta.crashes < SUSPECT or self._bound_here(run.task):
            return None
        return self._quarantine

    def _finish_apart(self, run: Run, settlement: Settlement | None, line: str) -> None:
        """A child answered, or died, or could not be started."""
        if settlement is None and (run.dropped or run.phase >= Phase.STOPPED):  # it died of our own hand
            self._finish(run, None, asyncio.CancelledError())
            return
        if settlement and settlement.op == "release":
            self.not_started(run.held, line)
            return
        if settlement and settlement.reason == NOT_IMPORTABLE and run.apart is self._quarantine:
            # It was not its wish to run apart: it runs here, as all that cannot.
            self._only_here[run.task.name] = line
            settlement = given_back(run.held.delivery)
        if settlement is None:
            settlement = after_crash(run.held.delivery, self._app.settings.max_deliveries, line, self._random)
        self._judge.report_apart(run, settlement, line)
        self._settle(run, settlement)

    async def _run(self, run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        task = run.task
        try:
            if self._hooks.run or task.definition.bind:
                returned = await acall(self._hooks, task, run.context, args, kwargs)
            else:  # the same, without a coroutine in between
                begin_run(run.context)
                returned = await task.handler(*args, **kwargs)
                if returned is not None:
                    returned = await awaited(task.name, returned)
        except KeyboardInterrupt as error:
            if not self.own_signals:
                raise  # Ctrl-C, for whoever runs this loop
            self._finish(run, None, error)
        except BaseException as error:  # noqa: BLE001 - also SystemExit, and a cancellation of the handler's own making
            self._finish(run, None, error)
        else:
            self._finish(run, returned, None)

    def _finish_in_loop(self, run: Run, returned: Unfinished, error: BaseException | None) -> None:
        """A thread is done with its handler; what that returned to be awaited goes on in the loop, in the same context."""
        # It may have been told to stop when no thread ran it any more.
        stopped = error is not None or run.dropped or run.phase > Phase.IN_TIME
        run.coroutine = self._loop.create_task(self._go_on(run, returned, stopped), context=copy_context())
        self._turns.look()

    async def _go_on(self, run: Run, unfinished: Unfinished, stopped: bool) -> None:
        try:
            returned = await unfinished.finish(stopped=stopped)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self.own_signals:
                raise
            self._finish(run, None, error)
        else:
            self._finish(run, returned, None)

    def _finish(self, run: Run, returned: Any, error: BaseException | None) -> None:
        if isinstance(returned, Unfinished):
            self._finish_in_loop(run, returned, error)
            return
        held = run.held
        if isinstance(error, _TOLD):
            if held.lost:
                held.leased = False  # whoever has it now says how it ends
            elif run.phase > Phase.IN_TIME:
                error = self._judge.why_stopped(run)
        settlement = None
        if held.leased and not held.settled:
            keeps_none = error is None and run.task.definition.result_ttl is None
            settlement = done(held.delivery) if keeps_none else self._judge.verdict(run, returned, error)
        elif error is not None and not held.leased and not held.lost and run.phase is not Phase.ABANDONED:
            self._judge.show_stack(run, stack(error))
            self._log.error(
                "Task %s[%s] failed, at most once: %s%s", run.task.name, held.delivery.id, error_text(error), origin(error)
            )
        self._settle(run, settlement)

    def _settle(self, run: Run, settlement: Settlement | None) -> None:
        """A run has ended. Without a settlement there is nothing to say any more: given back, abandoned, lost, or acked first."""
        held = run.held
        self._running.pop(held, None)
        # The coroutine's context variables know the run: a circle, that only the garbage collector would break.
        run.coroutine = None
        self.ended += 1
        if self.ended == self._share:
            self._share_done()
        held.over = True
        if not held.leased:
            self._consumer.leave(held)
        elif settlement is not None and not held.settled:
            self._consumer.ended(held, settlement, run.run_time)
        self._turns.look()

    def _abandon(self, run: Run) -> None:
        """Settle a run that does not stop as failed. Its slot is not free before it has ended; in a drain none is needed."""
        held = run.held
        if held.lost:
            held.leased = False
        elif held.leased and not held.settled:
            self._consumer.settle_running(held, self._judge.verdict(run, None, self._judge.why_stopped(run)))
        if self._consumer.stopping:
            self._leave_slot(held)

    def leave_lost_slots(self) -> None:
        """The worker claims no more: what was abandoned is not waited for. `consumer.stop` first."""
        for run in self._running.values():
            if run.phase is Phase.ABANDONED:
                self._leave_slot(run.held)

    def _leave_slot(self, held: Held) -> None:
        held.then = None
        if not held.leased:
            self._consumer.leave(held)

    def cancel(self, job_id: str) -> bool:
        """Stop a run: cooperatively, and by force where that is possible. False: it does not run here."""
        return any(self.call_off(held) for held in list(self._running) if held.delivery.id == job_id)

    def call_off(self, held: Held) -> bool:
        """Stop one whose message was cancelled. False: it does not run here, or is told already."""
        run = self._running.get(held)
        if run is None or run.phase >= Phase.STOPPED or not run.held.leased or run.held.settled:
            return False
        run.cancelled = True
        if self._waits_no_more(run):
            self._settle(run, self._judge.verdict(run, None, TaskCancelled("not begun")))
        else:
            self._timeouts.stop(run, monotonic())
        return True

    def _waits_no_more(self, run: Run) -> bool:
        """Take it out of its line. False: it was in none."""
        return run.started is None and self._turns.withdraw(run)

    def report(self) -> list[dict[str, Any]]:
        """Say what runs; no arguments."""
        now = monotonic()
        return [
            {
                "id": held.delivery.id,
                "task": run.task.name,
                "queue": held.keys.queue,
                "attempt": held.delivery.meta.attempt,
                "seconds": None if run.started is None else round(now - run.started, 3),
            }
            for held, run in self._running.items()
        ]

    def lose(self, held: Held) -> None:
        """Its lease is another's, or nobody's: its work is not wanted any more.

        A coroutine is cancelled, a child process killed. A thread is told; if it ends well all the same it says so, and is
        believed as long as nobody else got the message.
        """
        run = self._running.get(held)
        if run is None or held.settled or not held.leased:
            return
        held.lost = run.dropped = True
        self._observers.lost(held)
        self._log.warning(
            "Lost the lease of task %s[%s] of queue %s: it is told to stop, another worker may run it",
            run.task.name, held.delivery.id, held.keys.queue,
        )  # fmt: skip
        if self._waits_no_more(run):
            held.leased = False
            self._settle(run, None)
        elif run.coroutine:
            held.leased = False
            run.coroutine.cancel()
        elif run.apart:
            held.leased = False
            self._timeouts.stop(run, monotonic())
        else:
            self._threads.tell(run, TaskCancelled)

    def give_back(self) -> list[Held]:
        """Cancel what runs in the loop, and return all that is not finished; their ends are not reported any more.

        A thread cannot be stopped: its handler runs on until the process ends. What waits for a thread or a process is
        not begun.
        """
        self._timeouts.close()
        self._turns.close()
        unfinished = []
        for run in list(self._running.values()):
            held = run.held
            run.dropped = True
            if not held.leased:
                self._consumer.leave(held)
            elif not held.settled:
                held.settled = True
                unfinished.append(held)
            if run.coroutine:
                run.coroutine.cancel()
            elif run.apart:
                run.apart.kill(run)
        return unfinished


def _nothing() -> None:
    """Wait for no share."""
