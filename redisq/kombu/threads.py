"""Threads and locks of the operating system, also in programs where gevent or eventlet have replaced Python's.

A patched program gets greenlets in the place of threads. All greenlets of a thread stand still while one of them computes, so
nothing that must happen in time can be left to a greenlet.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

__all__ = ["Bell", "Lock", "Postponed", "Threads"]


class Lock(Protocol):
    """What a lock can do."""

    def acquire(self, blocking: bool = True) -> bool:
        """Take it, if need be after waiting."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> bool: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None: ...


class Bell:
    """Wakes the one thread that waits. Rings that nobody waited for count as one.

    Args:
        lock: A real lock, used by nobody else.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        lock.acquire()

    def ring(self) -> None:
        """Wake who waits, or the next who does."""
        # It is rung already: nothing to do.
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Wait for a ring, `seconds` at most."""
        self._lock.acquire(timeout=max(seconds, 0))

    def clear(self) -> None:
        """Forget a ring that was not waited for."""
        self._lock.acquire(blocking=False)


class Threads:
    """Starts real threads, and makes the locks that such a thread and the rest of the program share.

    Attributes:
        are_patched: Whether the program runs greenlets, in the place of threads or at least for its sockets.
    """

    def __init__(self) -> None:
        self.are_patched = True
        self._at_start: Callable[[], object] = _nothing
        self._at_end: Callable[[], object] = _nothing
        gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
        if gevent is not None and any(map(gevent.is_module_patched, ("_thread", "socket"))):
            self._start = gevent.get_original("_thread", "start_new_thread")
            self._allocate = gevent.get_original("_thread", "allocate_lock")
            self._at_start, self._at_end = _load_hub, _destroy_hub
        elif eventlet is not None and any(map(eventlet.is_monkey_patched, ("thread", "socket"))):
            original = eventlet.original("_thread")
            self._start, self._allocate = original.start_new_thread, original.allocate_lock
        else:
            self.are_patched = False

    def lock(self) -> Lock:
        """Return a lock that is only held for moments, never across I/O: a greenlet that waits for it stops all others."""
        return self._allocate() if self.are_patched else threading.Lock()

    def long_lock(self) -> Lock:
        """Return a lock that may be held across I/O: while a greenlet waits for it, the others run."""
        return _Cooperative(self._allocate()) if self.are_patched else threading.Lock()

    def bell(self) -> Bell:
        """Return a bell for a thread."""
        return Bell(self._allocate() if self.are_patched else threading.Lock())

    def start(self, run: Callable[[], object], name: str) -> Callable[[float], object]:
        """Start a thread that does not keep the program alive. Returns what waits for its end, so many seconds at most."""
        if not self.are_patched:
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            # Nobody can wait for the end of the own thread, which may be the one that collects garbage.
            return lambda seconds: thread.join(seconds) if thread is not threading.current_thread() else None
        self._at_start()
        running = [name]

        def begin() -> None:
            try:
                run()
            finally:
                self._at_end()
                running.clear()

        def join(seconds: float) -> None:
            till = time.monotonic() + seconds
            while running and time.monotonic() < till:
                time.sleep(_TURN)

        self._start(begin, ())
        return join


class Postponed(logging.Logger):
    """Takes log records in a real thread, and gives them to a logger when the program's own thread asks.

    The locks of a patched program's handlers belong to its greenlets: a real thread must not wait for them.

    Args:
        log: Where the records go.
    """

    def __init__(self, log: logging.Logger) -> None:
        super().__init__(log.name)
        self._target = log
        self._records: deque[logging.LogRecord] = deque()

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is `logging`'s
        """Take all: the logger itself decides when it gets them."""
        return True

    def handle(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def deliver(self) -> None:
        """Log what was kept."""
        while self._records:
            with suppress(IndexError):
                record = self._records.popleft()
                if self._target.isEnabledFor(record.levelno):
                    self._target.handle(record)


#: Seconds that a greenlet leaves to the others between two looks at a lock or a thread.
_TURN = 0.001


class _Cooperative:
    """A real lock for which greenlets wait without stopping each other."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def acquire(self, blocking: bool = True) -> bool:
        while not self._lock.acquire(False):
            if not blocking:
                return False
            # Patched: the other greenlets of this thread run.
            time.sleep(_TURN)
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _nothing() -> None:
    """A plain thread needs nothing and leaves nothing behind."""


def _load_hub() -> None:
    """Make gevent import what its event loops need. Its import locks are patched: a real thread must not find them taken."""
    hub = sys.modules["gevent"].get_hub()
    hub.resolver, hub.threadpool  # noqa: B018 - properties that import


def _destroy_hub() -> None:
    """Close the event loop that gevent made for this thread's sockets: it does not end with the thread."""
    sys.modules["gevent"].get_hub().destroy(destroy_loop=True)
