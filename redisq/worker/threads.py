"""Threads for sync handlers."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from redisq.clocks import monotonic
from redisq.errors import SoftTimeout, TaskCancelled
from redisq.worker.exits import LAST_WORD
from redisq.worker.run import Run

__all__ = ["Item", "ThreadPool"]

#: What begins within so many seconds counts as beginning at once.
SOON = 0.01

#: Seconds over which ends are counted, and after which what was counted says nothing any more.
SPAN, STALE = 0.01, 0.1

#: Told the run, what its handler returned, and what it raised or None.
Done = Callable[[Run, Any, BaseException | None], None]


class Item(NamedTuple):
    """A handler on its way to a thread. `done(run, returned, error or None)` is called in the loop.

    Both calls run in the context, which is the run's own.
    """

    run: Run
    handler: Callable[[], Any]
    done: Done
    context: Context


class ThreadPool:
    """Runs handlers in daemon threads and reports each end in the event loop.

    Daemons, unlike `concurrent.futures`: a handler that hangs must not keep a worker from its exit. One wake-up of
    the loop serves all that ended since the last.

    Args:
        loop: Where ends are reported.
        size: Threads at most; started when needed.

    Attributes:
        size: The same.
    """

    takes_ahead = True

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self.size = size
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[Item | None] = SimpleQueue()
        self._busy = 0
        self._ended: deque[tuple[Item, Any, BaseException | None]] = deque()
        self._woken = False
        self._telling = threading.Lock()
        #: Handlers that ended since then, and how many ended in a second before that.
        self._count = 0
        self._since = monotonic()
        self._rate = 0.0

    @property
    def room(self) -> int:
        """How many more could begin now; less than 0: so many wait."""
        return self.size - self._busy

    def ahead(self) -> int:
        """Return how many handlers the threads get through in a few milliseconds; 0, unless they just did."""
        return int(self._rate * SOON) if monotonic() - self._since < STALE else 0

    def start(self, item: Item) -> None:
        """Run a handler in a thread. Without room the next thread that is free begins it, without a turn of the loop.

        Raises:
            RuntimeError: The system gives no more threads. Nothing runs.
        """
        if self._busy >= len(self._threads) and len(self._threads) < self.size:
            thread = threading.Thread(target=self._run, name=f"redisq-handler-{len(self._threads)}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._busy += 1
        self._work.put(item)

    def take_back(self) -> list[Item]:
        """Return those that have not begun, in order; they do not begin any more. Not after `close`."""
        items = []
        with suppress(Empty):
            while item := self._work.get_nowait():
                items.append(item)
        if items:
            # They waited: the handlers of before say nothing of those that run now.
            self._rate = 0.0
        self._busy -= len(items)
        return items

    def tell(self, run: Run, what: type[BaseException]) -> None:
        """Raise an error in the thread of a run, when it next runs Python code. Not once the handler has ended."""
        with self._telling:
            if run.thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(run.thread), ctypes.py_object(what))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            returned, error = self._call(item)
            self._ended.append((item, returned, error))
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._report)
                except RuntimeError:
                    return  # the loop is closed: the worker has gone, and gave the message back
            del item, returned, error

    def _call(self, item: Item) -> tuple[Any, BaseException | None]:
        returned: Any = None
        error: BaseException | None = None
        try:
            item.run.thread = threading.get_ident()
            item.run.begin()
            try:
                if item.run.cancelled or item.run.dropped:  # just now
                    error = TaskCancelled("not begun")
                else:
                    returned = item.context.run(item.handler)
            except BaseException as raised:  # noqa: BLE001 - reported to the worker, which decides
                error = raised
            with self._telling:
                item.run.thread = None
        except (SoftTimeout, TaskCancelled) as told:
            # It was told in the very moment of its end.
            item.run.thread = None
            error = error or told
        return returned, error

    def _report(self) -> None:
        # Before the look, not after: an end that comes in between wakes the loop once more for nothing, none is missed.
        self._woken = False
        count = 0
        while self._ended:
            item, returned, error = self._ended.popleft()
            self._busy -= 1
            count += 1
            item.context.run(item.done, item.run, returned, error)
        self._measure(count)

    def _measure(self, count: int) -> None:
        self._count += count
        passed = monotonic() - self._since
        if passed >= SPAN:
            self._rate = self._count / passed
            self._count, self._since = 0, self._since + passed

    def close(self) -> None:
        """Let the idle threads end, and see them end. One that still runs a handler is left behind."""
        for _ in self._threads:
            self._work.put(None)
        if not self._busy:
            for thread in self._threads:
                thread.join(LAST_WORD)
