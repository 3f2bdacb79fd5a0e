"""The hooks of an app's middleware: only those that are overridden, in order, ready to be called."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redisq.app.middleware import Middleware, OutgoingCall
from redisq.errors import CallRefused, ConfigError
from redisq.logs import get_logger

__all__ = ["Hook", "Hooks"]


class Hook(NamedTuple):
    """One overridden method, and whose it is."""

    owner: str
    call: Callable[..., Any]


class Hooks:
    """What is called when; a tuple for each hook, empty for those that nobody overrides.

    Args:
        app: The app's name, for the logger.
        middleware: The first is the outermost.

    Raises:
        ConfigError: One is no `Middleware`, or its `run` is no generator function.
    """

    def __init__(self, app: str, middleware: Iterable[Middleware] = ()) -> None:
        self.middleware = tuple(middleware)
        self.log = get_logger(f"{app}.middleware")
        for each in self.middleware:
            if not isinstance(each, Middleware):
                raise ConfigError(f"middleware {each!r}: want an instance of a class that is made from redisq.Middleware")
            if not inspect.isgeneratorfunction(each.run):
                raise ConfigError(f"{type(each).__name__}.run: want a plain function with one `yield`, where the handler runs")
        self.enqueue = self._overridden("enqueue")
        self.claim = self._overridden("claim")
        self.run = self._overridden("run")
        self.settle = self._overridden("settle")
        self.retry = self._overridden("retry")
        self.limited = self._overridden("limited")
        self.dead = self._overridden("dead")
        self.lost = self._overridden("lost")
        self._failing: set[tuple[str, Hook]] = set()

    def _overridden(self, name: str) -> tuple[Hook, ...]:
        plain = getattr(Middleware, name)
        return tuple(
            Hook(type(each).__name__, getattr(each, name))
            for each in self.middleware
            if getattr(type(each), name) is not plain or name in vars(each)
        )

    def outgoing(self, call: OutgoingCall) -> OutgoingCall:
        """Return what is sent in place of a call.

        Raises:
            CallRefused: Nothing is.
        """
        for hook in self.enqueue:
            try:
                other = hook.call(call)
            except CallRefused:
                raise
            except Exception as error:
                raise CallRefused(f"task {call.task}: {hook.owner}.enqueue raised {type(error).__name__}: {error}") from error
            if not isinstance(other, OutgoingCall) or (other.task, other.queue) != (call.task, call.queue):
                raise CallRefused(f"task {call.task}: {hook.owner}.enqueue must return the call, or call.replace(...)")
            call = other
        return call

    def tell(self, name: str, hooks: Iterable[Hook], *what: Any, also: tuple[type[BaseException], ...] = ()) -> None:
        """Call observers. None of their errors, `also` among them, reaches the message, or the next observer."""
        errors: tuple[type[BaseException], ...] = (Exception, SystemExit, asyncio.CancelledError, *also)
        for hook in hooks:
            try:
                hook.call(*what)
            except errors as error:  # any code may stand in a hook
                self.failed(name, hook, error)

    def failed(self, name: str, hook: Hook, error: BaseException) -> None:
        """Log an error that is nobody's but the hook's: the first of a hook in full, the others when debugging."""
        first = (name, hook) not in self._failing
        self._failing.add((name, hook))
        self.log.log(
            logging.ERROR if first else logging.DEBUG,
            "%s.%s failed, the message is not touched by that; its next errors are logged at level DEBUG",
            hook.owner,
            name,
            exc_info=error,
        )
