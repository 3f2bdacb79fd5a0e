"""Call a handler through the `run` hooks. One passage for coroutines, threads and processes; two short drivers."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, _AsyncGeneratorContextManager, _GeneratorContextManager
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType, NoneType, TracebackType
from typing import Any, Self

from redisq.app.context import Context, begin_run
from redisq.app.hooks import Hook, Hooks
from redisq.app.task import Task
from redisq.errors import RateLimited, Reject, Retry
from redisq.logs import get_logger

__all__ = ["Passage", "Unfinished", "acall", "awaited", "call"]

#: Types of results that are no awaitable, which is faster to see than to find out.
_PLAIN = frozenset((NoneType, bool, int, float, str, bytes, list, tuple, dict))

#: Objects that calling a generator function makes, instead of running its body.
_BODIES = (GeneratorType, AsyncGeneratorType, _GeneratorContextManager, _AsyncGeneratorContextManager)

#: Iterators that do their work, such as calling the function of a `map`, when something reads them.
_LAZY = (
    map, filter, zip, enumerate, itertools.chain, itertools.dropwhile, itertools.filterfalse, itertools.islice, itertools.starmap,
    itertools.takewhile,
)  # fmt: skip
_FUNCTIONS = (FunctionType, MethodType, functools.partial)

_log = get_logger("redisq.tasks")

#: What a hook says on purpose when a handler has returned; anything else that it raises then is its own trouble.
_VERDICTS = (Retry, Reject, RateLimited, KeyboardInterrupt)


class Passage:
    """The way in through the `run` hooks, and out again: a context manager around the handler.

    Args:
        hooks: Of the app.
        context: Of the run.

    Attributes:
        open: Whether the handler is to be called; else a hook gave the result without it.
        returned: What the handler, or a hook in its place, returned.
    """

    def __init__(self, hooks: Hooks, context: Context) -> None:
        self._hooks = hooks
        self._context = context
        self._entered: list[tuple[Hook, Generator[None, Any, Any]]] = []
        self.open = True
        self.returned: Any = None

    def __enter__(self) -> Self:
        for hook in self._hooks.run:
            steps = hook.call(self._context)
            try:
                next(steps)
            except StopIteration as stop:
                self.open, self.returned = False, stop.value
                break
            except BaseException as error:
                self.open = False
                # The hooks outside of this one see it as they see an error of the handler.
                if not self.__exit__(type(error), error, error.__traceback__):
                    raise
                break
            self._entered.append((hook, steps))
        return self

    def __exit__(self, _kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> bool:
        error = raised
        while self._entered:
            error = self._leave(*self._entered.pop(), error)
        if error is not None and error is not raised:
            raise error
        return error is None

    def _leave(self, hook: Hook, steps: Generator[None, Any, Any], error: BaseException | None) -> BaseException | None:
        """Let one hook see how it went; return the error that it leaves."""
        try:
            if error is None:
                steps.send(self.returned)
            else:
                steps.throw(error)
        except StopIteration as stop:
            if stop.value is not None or error is not None:
                self.returned = stop.value
            return None
        except BaseException as raised:  # noqa: BLE001 - returned, or logged
            if error is not None or isinstance(raised, _VERDICTS):
                return raised
            self._hooks.failed("run", hook, raised)
            return None
        steps.close()
        self._hooks.failed("run", hook, RuntimeError("it yielded twice: want one `yield`, where the handler runs"))
        return error


def _has_to_be_awaited(returned: Any) -> bool:
    return type(returned) not in _PLAIN and inspect.isawaitable(returned)


def _checked(task: str, returned: Any) -> Any:
    """Return a result. A generator is none if its body has not run. What nothing reads or calls is logged.

    Raises:
        Reject: It is a generator, or the context manager that was made out of one.
    """
    if isinstance(returned, _BODIES) and not _is_over(getattr(returned, "gen", returned)):
        kind = "a generator" if isinstance(returned, GeneratorType | AsyncGeneratorType) else "a context manager"
        advice = "return a list, or what it gives" if kind == "a generator" else "enter it with `with` in the handler"
        raise Reject(f"task {task} returned {kind}, whose body has not run: {advice}")
    # The handler's own body has run: the job is done, and what it returned may have been used already.
    if isinstance(returned, _LAZY):
        _log.warning(
            "Task %s is done, but it returned an object of type %s, which does its work only when something reads it:"
            " read it in the handler, in a loop or with list()",
            task,
            type(returned).__name__,
        )
    elif isinstance(returned, _FUNCTIONS):
        _log.warning("Task %s is done, but it returned a function, which nothing calls: call it in the handler", task)
    return returned


def _is_over(generator: Any) -> bool:
    """Return True when the generator has ended: no frame of it is left."""
    return getattr(generator, "ag_frame" if isinstance(generator, AsyncGeneratorType) else "gi_frame") is None


async def awaited(task: str, returned: Any) -> Any:
    """Return what a handler's result comes to: an awaitable is awaited, however often that gives another.

    Raises:
        Reject: It comes to a generator, or to a context manager that was made out of one.
    """
    while type(returned) not in _PLAIN:
        if not inspect.isawaitable(returned):
            return _checked(task, returned)
        returned = await returned
    return returned


class Unfinished:
    """What a plain function returned that is still to be awaited, in an event loop and inside of the `run` hooks.

    Args:
        task: The task's name.
        awaitable: What it returned.
        passage: The way through the hooks; None: there are none.
        around: Leaves the passage when it is closed.
    """

    def __init__(self, task: str, awaitable: Any, passage: Passage | None = None, around: ExitStack | None = None) -> None:
        self._task = task
        self._awaitable = awaitable
        self._passage = passage
        self._around = around

    async def finish(self, *, stopped: bool = False) -> Any:
        """Await it, and return what it comes to.

        Args:
            stopped: The run was told to stop meanwhile: it is cancelled and not awaited.
        """
        if self._passage is None or self._around is None:
            return await self._result(stopped)
        with self._around:
            self._passage.returned = await self._result(stopped)
        return self._passage.returned

    async def _result(self, stopped: bool) -> Any:
        if not stopped:
            return await awaited(self._task, self._awaitable)
        if isinstance(self._awaitable, CoroutineType):
            self._awaitable.close()
        elif isinstance(self._awaitable, asyncio.Future):
            self._awaitable.cancel()
        raise asyncio.CancelledError


def call(hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a plain function, in this thread. Returns its result, or an `Unfinished` when that has to be awaited."""
    begin_run(context)
    if task.definition.bind:
        args = (context(), *args)
    if not hooks.run:
        returned = task.handler(*args, **kwargs)
        if type(returned) in _PLAIN:
            return returned
        return Unfinished(task.name, returned) if _has_to_be_awaited(returned) else _checked(task.name, returned)
    passage = Passage(hooks, context())
    with ExitStack() as around:
        around.enter_context(passage)
        if passage.open:
            returned = task.handler(*args, **kwargs)
            if _has_to_be_awaited(returned):
                return Unfinished(task.name, returned, passage, around.pop_all())
            passage.returned = _checked(task.name, returned)
    return passage.returned


async def acall(
    hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Await a coroutine, in this loop. As `call`."""
    begin_run(context)
    if task.definition.bind:
        args = (context(), *args)
    if not hooks.run:
        return await awaited(task.name, task.handler(*args, **kwargs))
    with Passage(hooks, context()) as passage:
        if passage.open:
            passage.returned = await awaited(task.name, task.handler(*args, **kwargs))
    return passage.returned
