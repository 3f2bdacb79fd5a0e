"""An event loop that starts each callback and task in a fresh copy of one context, whoever schedules it.

Without it, asyncio copies the context of the caller. The handler that ends schedules the claim of the next messages, so
their handlers would inherit its context variables: its user, its log fields, its trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVarTuple, Unpack

__all__ = ["CleanLoop"]

Ts = TypeVarTuple("Ts")


class CleanLoop(asyncio.AbstractEventLoop):
    """The parts of an event loop that a worker schedules with.

    Args:
        bare: The event loop itself.

    Attributes:
        bare: The same.
    """

    def __init__(self, bare: asyncio.AbstractEventLoop) -> None:
        self.bare = bare
        #: Nothing ever runs in it, so nothing can change it.
        self._clean = copy_context()
        #: Returns a fresh copy of the context in which this object was made. Safe to call from any thread. Each run has
        #: one: a method around it would cost more than the copy.
        self.context: Callable[[], Context] = self._clean.copy

    def time(self) -> float:
        """Return the loop's clock, in seconds."""
        return self.bare.time()

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None) -> asyncio.Handle:
        """Call it in the next turn of the loop."""
        return self.bare.call_soon(callback, *args, context=self._or_clean(context))

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it in the next turn of the loop. Safe to call from any thread."""
        return self.bare.call_soon_threadsafe(callback, *args, context=self._or_clean(context))

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it after `delay` seconds."""
        return self.bare.call_later(delay, callback, *args, context=self._or_clean(context))

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Run a coroutine in this context."""
        return self.bare.create_task(coro, name=name, context=self._or_clean(context))

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Call it whenever there is something to read. All these calls share one copy of the context."""
        self._clean.copy().run(lambda: self.bare.add_reader(fd, callback, *args))

    def remove_reader(self, fd: Any) -> bool:
        """Watch the file no more."""
        return self.bare.remove_reader(fd)

    def _or_clean(self, context: Context | None) -> Context:
        # Not `or`: an empty context is false.
        return self._clean.copy() if context is None else context
