"""Tell what kind of callable a handler is: does calling it run its body, or only make something that has to be awaited?"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from redisq.errors import ConfigError

__all__ = ["function_of", "is_async", "refuse_generators"]

#: How `asyncio` marked coroutine functions before `inspect.markcoroutinefunction` of Python 3.12.
_MARK = getattr(asyncio.coroutines, "_is_coroutine", None)


_any: Any = iter
#: The code of what `contextlib.contextmanager` and `asynccontextmanager` make out of any generator function.
_MANAGERS = tuple(make(_any).__code__ for make in (contextlib.contextmanager, contextlib.asynccontextmanager))


def _layers(handler: Any) -> Iterator[Any]:
    """Give the handler, and what is called when it is called: under partials, methods, and objects with `__call__`."""
    while True:
        yield handler
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, staticmethod) or inspect.ismethod(handler):
            handler = handler.__func__
        elif inspect.isfunction(handler) or isinstance(handler, type) or not inspect.isfunction(type(handler).__call__):
            return
        else:
            handler = type(handler).__call__


def function_of(handler: Callable[..., Any]) -> Any:
    """Return the function that runs in the end when the handler is called."""
    *_, last = _layers(handler)
    return last


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it is sure to make a coroutine.

    A plain function may still return an awaitable; a wrapper around an `async def` may as well run it by itself. Only the
    call shows which.
    """
    return any(
        inspect.iscoroutinefunction(layer) or (_MARK is not None and getattr(layer, "_is_coroutine", None) is _MARK)
        for layer in _layers(handler)
    )


def refuse_generators(task: str, handler: Callable[..., Any]) -> None:
    """Accept a handler whose body runs when it is called, or awaited.

    Raises:
        ConfigError: It is a generator function, or the context manager that was made out of one.
    """
    function = function_of(handler)
    if getattr(function, "__code__", None) in _MANAGERS:
        raise ConfigError(
            f"task {task}: it is a context manager, and nobody would run its body:"
            " make the task a function that enters it with `with`"
        )
    if inspect.isasyncgenfunction(function):
        kind = "an async generator function"
    elif inspect.isgeneratorfunction(function) and not function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
        kind = "a generator function"
    else:
        return
    raise ConfigError(
        f"task {task}: it is {kind}, and nobody would run its body: remove the `yield`; return a list, or send a task for each item"
    )
