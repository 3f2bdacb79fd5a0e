"""The sandbox: an app on a Redis of its own, in this process, for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from redisq.app.app import RedisQ
from redisq.app.task import Task
from redisq.broker.keys import QueueKeys
from redisq.errors import ConfigError
from redisq.states import State
from redisq.testing.calls import Call, Wanted, calls_in
from redisq.testing.clock import Clock
from redisq.testing.drain import Drained, drain
from redisq.testing.eager import run_at_once
from redisq.testing.fake import FakeServer
from redisq.testing.loops import loop_is_running, run_here
from redisq.testing.swap import swapped, with_jitter, without_limits
from redisq.words import counted

if TYPE_CHECKING:
    import redis

__all__ = ["Sandbox", "sandbox"]

# Not "testing" or "test_app": pytest takes every function and class of a test module for a test whose name begins so.

_WAITING = (State.WAITING, State.DELAYED, State.RETRY)

#: As many calls of another kind are shown when an assertion fails.
_SHOWN = 20


@contextmanager
def sandbox(
    app: RedisQ, *, eager: bool = False, propagate: bool = True, limits: bool = False, jitter: float | None = None
) -> Iterator[Sandbox]:
    """Put an app on an empty Redis in this process; afterwards it is what it was. Shared tasks go through it as well.

        with sandbox(app) as box:
            answer.delay(42, "hi")
            box.assert_enqueued(answer, args=(42,))
            box.drain()

    Args:
        app: The app, usually the one that the program's modules made.
        eager: Calls run where they are sent, their retries too, instead of waiting for `drain`.
        propagate: In eager mode: a call that fails for good raises its last error to the sender. False: it is a dead
            letter, and nothing is raised, as in production.
        limits: Calls keep the limits of their tasks, by the sandbox's clock, which stands still: move it. False: no limit
            holds a call back; lanes, caps and dedupe keys count all the same. Not in eager mode.
        jitter: How much of its random part each wait of a retry loses. 0: nothing, so `retry_backoff` counts to the
            microsecond; 1: all of it, half of the wait. None: a random share, as in production.

    Raises:
        ConfigError: fakeredis is not installed, or `jitter` is not from 0 to 1.
    """
    if jitter is not None and not 0 <= jitter <= 1:
        raise ConfigError(f"jitter={jitter!r}: want 0 to 1, or None for a random one")
    server = FakeServer(Clock.scripts())
    with ExitStack() as stack:
        client = server.client()
        stack.callback(client.close)
        clock = Clock(client)
        stack.enter_context(swapped(app, server))
        if not limits:
            stack.enter_context(without_limits(app))
        if jitter is not None:
            stack.enter_context(with_jitter(app, jitter))
        if eager:
            stack.enter_context(run_at_once(app, clock, propagate=propagate))
        yield Sandbox(app, client, clock, eager=eager)


class Sandbox:
    """What a test sees of its app. Made by `sandbox`.

    Attributes:
        app: The app.
        client: A bare sync client of its Redis.
        clock: The time of its queues. It stands still: `clock.advance(60)`.
    """

    def __init__(self, app: RedisQ, client: redis.Redis, clock: Clock, *, eager: bool) -> None:
        self.app = app
        self.client = client
        self.clock = clock
        self._eager = eager

    def enqueued(self, task: Task[..., Any] | str | None = None, *, queue: str | None = None) -> list[Call]:
        """Return the calls that wait for a worker, for their time, or for their next attempt; queue by queue, in order.

        Args:
            task: Only calls of this task, or of the task of that name.
            queue: Only calls in this queue.
        """
        return self._calls(_WAITING, task, queue)

    def dead(self, task: Task[..., Any] | str | None = None, *, queue: str | None = None) -> list[Call]:
        """Return the dead letters; their `reason` and `error` say why. As `enqueued`."""
        return self._calls((State.DEAD,), task, queue)

    def assert_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        count: int | None = None,
    ) -> list[Call]:
        """Fail unless such a call waits; return those that do.

        Arguments are compared by parameter: `f(1, b=2)` and `f(1, 2)` are the same call. Parameters that are not named
        here may have any value.

        Args:
            task: The task, or its name.
            args: Its first positional arguments.
            kwargs: Some of its named arguments.
            queue: The queue; None: any.
            count: So many such calls, no more and no less; None: one at least.

        Raises:
            AssertionError: No such call waits, or another number of them; lists what waits.
            ArgumentsError: No call of that task could have these arguments.
        """
        __tracebackhide__ = True
        wanted = Wanted(self.app, task, args, kwargs or {}, queue)
        found = [call for call in self.enqueued() if wanted.matches(call)]
        if len(found) != count if count is not None else not found:
            self._fail(f"want {'a call' if count is None else counted(count, 'call')} {wanted}, found {len(found)}")
        return found

    def refute_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
    ) -> None:
        """Fail if such a call waits. As `assert_enqueued` with `count=0`."""
        __tracebackhide__ = True
        self.assert_enqueued(task, args=args, kwargs=kwargs, queue=queue, count=0)

    def drain(self, *, queue: str | None = None, delayed: bool = False) -> Drained:
        """Run all that waits, and what that sends, by a worker in this process, until no call is due.

        Args:
            queue: Only this one; None: the queues of the app's tasks, and any other that has a call of one of them.
            delayed: Also what is due later, retries among it: the clock moves to each due time in turn.

        Raises:
            RuntimeError: An event loop is running, in which `await adrain()` does the same; or there is no end to it.
        """
        if loop_is_running():
            raise RuntimeError("drain() was called in a running event loop, which it would block: await box.adrain()")
        return run_here(self.app, lambda: self.adrain(queue=queue, delayed=delayed))

    async def adrain(self, *, queue: str | None = None, delayed: bool = False) -> Drained:
        """Run all that waits, in the running event loop. As `drain`."""
        return await drain(self.app, self.clock, lambda: self._queues_to_serve(queue), delayed=delayed)

    def _queues_to_serve(self, queue: str | None) -> list[QueueKeys]:
        if queue is not None:
            return [self.app.keys(queue)]
        others = [call.queue for call in self.enqueued() if call.task in self.app.tasks]
        return [self.app.keys(name) for name in dict.fromkeys((*self.app.queues, *others))]

    def _queues(self) -> list[QueueKeys]:
        """All queues of the app that have a message."""
        namespace = f"{self.app.settings.namespace}:" if self.app.settings.namespace else ""
        names = sorted(key.decode() for key in self.client.scan_iter(f"{namespace}*:messages"))
        return [self.app.keys(name.removeprefix(namespace).removesuffix(":messages")) for name in names]

    def _calls(self, states: Sequence[State], task: Task[..., Any] | str | None, queue: str | None) -> list[Call]:
        name = task.name if isinstance(task, Task) else task
        return [
            call
            for keys in self._queues()
            if queue in (None, keys.queue)
            for state in states
            for call in calls_in(self.app, keys, state)
            if name in (None, call.task)
        ]

    def _fail(self, what: str) -> None:
        __tracebackhide__ = True
        calls = [*self.enqueued(), *self.dead()]
        lines = [f"  {call}" for call in calls[:_SHOWN]]
        if len(calls) > _SHOWN:
            lines.append(f"  and {len(calls) - _SHOWN} more")
        there = "\n".join(["; there is:", *lines]) if lines else "; no call waits"
        raise AssertionError(what + there + (" (eager: calls run where they are sent)" if self._eager else ""))
