"""Threads for sync handlers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["ThreadPool"]

#: Told what the handler returned, and what it raised or None.
Done = Callable[[Any, BaseException | None], None]


class ThreadPool:
    """Runs handlers in daemon threads and reports each end in the event loop.

    Daemons, unlike `concurrent.futures`: a handler that hangs must not keep a worker from its exit. One wake-up of
    the loop serves all that ended since the last.

    Args:
        loop: Where ends are reported.
        size: Threads at most; started when needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self._size = size
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._busy = 0
        self._ended: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._woken = False

    def submit(self, handler: Callable[[], Any], done: Done) -> None:
        """Run the handler in a thread, then `done(returned, error or None)` in the loop."""
        self._busy += 1
        if self._busy > len(self._threads) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._run, name=f"redisq-handler-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put((handler, done))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            handler, done = item
            returned, error = None, None
            try:
                returned = handler()
            except BaseException as raised:  # noqa: BLE001 - reported to the worker, which decides
                error = raised
            self._ended.append((done, returned, error))
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._report)
                except RuntimeError:
                    return  # the loop is closed: the worker has gone, and gave the message back
            del item, handler, done, returned, error

    def _report(self) -> None:
        # Before the look, not after: an end that comes in between wakes the loop once more for nothing, none is missed.
        self._woken = False
        while self._ended:
            done, returned, error = self._ended.popleft()
            self._busy -= 1
            done(returned, error)

    def close(self) -> None:
        """Let the idle threads end. One that still runs a handler is left behind."""
        for _ in self._threads:
            self._work.put(None)
