"""Call a handler through the `run` hooks. One passage for coroutines, threads and processes; two short drivers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from redisq.app.context import Context, begin_run
from redisq.app.hooks import Hook, Hooks
from redisq.app.task import Task
from redisq.errors import RateLimited, Reject, Retry

__all__ = ["Passage", "acall", "call"]

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


def call(hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a plain function, in this thread."""
    begin_run(context)
    if task.definition.bind:
        args = (context(), *args)
    if not hooks.run:
        return task.handler(*args, **kwargs)
    with Passage(hooks, context()) as passage:
        if passage.open:
            passage.returned = task.handler(*args, **kwargs)
    return passage.returned


async def acall(
    hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Await a coroutine, in this loop. As `call`."""
    begin_run(context)
    if task.definition.bind:
        args = (context(), *args)
    if not hooks.run:
        return await task.handler(*args, **kwargs)
    with Passage(hooks, context()) as passage:
        if passage.open:
            passage.returned = await task.handler(*args, **kwargs)
    return passage.returned
