"""One run of one call in eager mode: what a worker does with a delivery, in the caller's thread or loop.

The verdicts are the worker's own. What it has beyond them is left out: timeouts, processes, and words in a log, for the
caller gets the error itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.calling import Unfinished, acall
from redisq.app.calling import call as sync_call
from redisq.app.context import Context, begin_run, context_of, end_run
from redisq.app.progress import KEPT, Progress
from redisq.app.task import Task
from redisq.backoff import jitter_of
from redisq.broker.commands import Settlement, keep_progress
from redisq.broker.keys import QueueKeys
from redisq.clocks import monotonic
from redisq.codec.msgpack import decode
from redisq.errors import DecodeError, EncodeError, MessageTooLarge, UnknownTask
from redisq.gates.blame import Blame
from redisq.message import Delivery, check_id
from redisq.testing.loops import loop_is_running, off_the_loop, run_here
from redisq.worker.refusals import after_refusal
from redisq.worker.verdict import after_failure, after_success, done, unreadable

__all__ = ["Attempt"]

#: Awaits what a plain function returned.
Finish = Callable[[], Coroutine[Any, Any, Any]]


class Call:
    """A handler with its arguments, and what it returned."""

    def __init__(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.returned: Any = None


class Attempt:
    """One run of one call.

    Args:
        app: Whose task.
        keys: Of the queue.
        delivery: The call, under its lease.
        settle: Takes the task's name, if it was found, the end of the call, and the microseconds that its handler ran.

    Attributes:
        to_be_repeated: It failed, and was settled so that it is tried again.
        error: Why it failed, or why its result is not kept; None: all is well, or nobody here knows the task.
    """

    def __init__(
        self, app: RedisQ, keys: QueueKeys, delivery: Delivery, settle: Callable[[str | None, Settlement, int], None]
    ) -> None:
        self._app = app
        self._keys = keys
        self._delivery = delivery
        self._task: str | None = None
        self._settle_as = settle
        self.to_be_repeated = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run it: a plain function in this thread, a coroutine in a loop of its own; in no case in a loop that runs here."""
        if call := self._read():
            in_loop = partial(run_here, self._app, partial(self._in_loop, call))
            finish = partial(run_here, self._app)
            off_the_loop(in_loop if call.task.is_async else partial(self._in_thread, call, finish))

    async def arun(self) -> None:
        """Run it: a coroutine in this loop, a plain function in a thread, as a worker does."""
        if call := self._read():
            loop = asyncio.get_running_loop()

            def finish(work: Finish) -> Any:
                return asyncio.run_coroutine_threadsafe(work(), loop).result()

            await (self._in_loop(call) if call.task.is_async else asyncio.to_thread(self._in_thread, call, finish))

    def _read(self) -> Call | None:
        """Return what to call; None: there is nothing to call, and it is settled."""
        try:
            check_id(self._delivery)
            message = decode(self._delivery.body, self._app.settings.max_bytes)
            task = self._app.find_task(message.task)
            self._task = task.name
            return Call(task, *task.arguments(message))
        except UnknownTask as error:
            self._settle(unreadable(self._delivery, error, self._random), 0)
        except DecodeError as error:
            self.error = error
            self._settle(unreadable(self._delivery, error, self._random), 0)
        return None

    @property
    def _random(self) -> Callable[[], float]:
        return jitter_of(self._app.settings.jitter)

    def _settle(self, settlement: Settlement, run_time: int) -> None:
        self._settle_as(self._task, settlement, run_time)

    def _in_thread(self, call: Call, finish: Callable[[Finish], Any]) -> None:
        context = copy_context()
        with self._judged(call):
            returned = context.run(sync_call, self._app.hooks, call.task, self._context(call), call.args, call.kwargs)
            call.returned = context.run(finish, returned.finish) if isinstance(returned, Unfinished) else returned

    async def _in_loop(self, call: Call) -> None:
        context = self._context(call)
        before = begin_run(context)
        try:
            with self._judged(call):
                call.returned = await acall(self._app.hooks, call.task, context, call.args, call.kwargs)
        finally:
            end_run(before)

    def _context(self, call: Call) -> Callable[[], Context]:
        context = context_of(call.task.definition, self._delivery, self._keys.queue, "eager", 0.0, self._keep)
        return lambda: context

    def _keep(self, progress: Progress) -> None:
        self._app.connector.execute(keep_progress(self._keys, self._delivery.id, progress.packed(), KEPT))

    @contextmanager
    def _judged(self, call: Call) -> Iterator[None]:
        """Settle how the handler ends that runs inside."""
        early = call.task.definition.ack == "early"
        if early:
            self._settle(done(self._delivery), 0)
        begun = monotonic()
        try:
            yield
        except BaseException as error:
            if _given_up(error):
                if not early:
                    self._settle(Settlement("release", self._delivery.id, self._delivery.fence), 0)
                raise
            self.error = error
            if not early:
                self._fail(call.task, error, _microseconds_since(begun))
        else:
            if not early:
                self._settle(self._success(call), _microseconds_since(begun))

    def _success(self, call: Call) -> Settlement:
        try:
            return after_success(call.task, self._delivery, call.returned, self._app.settings.max_bytes)
        except (EncodeError, MessageTooLarge) as error:
            self.error = error
            return done(self._delivery)

    def _fail(self, task: Task[..., Any], error: BaseException, run_time: int) -> None:
        # Limits do not count here, so no gate is to blame: it is tried again at once, a bounded number of times.
        refused = after_refusal(
            task, self._delivery, error, Blame(), self._app.settings.max_bytes, jitter_of(self._app.settings.jitter), pausing=False
        )
        settlement = refused or after_failure(task.definition, self._delivery, error, self._random)
        self.error = error
        self.to_be_repeated = settlement.op in ("retry", "limited")
        self._settle(settlement, run_time)


def _given_up(error: BaseException) -> bool:
    """Whether it is the caller who does not want it any more, rather than the handler who failed."""
    if not isinstance(error, asyncio.CancelledError) or not loop_is_running():
        return isinstance(error, KeyboardInterrupt)
    caller = asyncio.current_task()
    return caller is not None and caller.cancelling() > 0


def _microseconds_since(begun: float) -> int:
    return int((monotonic() - begun) * 1_000_000)
