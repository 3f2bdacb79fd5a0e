"""The task: a handler, its options, and the ways to call it later."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields
from datetime import datetime
from functools import update_wrapper
from inspect import unwrap
from pathlib import Path
from types import CodeType, GenericAlias
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from redisq.app.calls import Calls
from redisq.app.context import Context, current_context, detached
from redisq.app.gating import gating_of, own_options
from redisq.app.job import Job
from redisq.app.kinds import function_of, is_async, refuse_generators
from redisq.app.settings import NOW, SendOptions, TaskOptions, send_options
from redisq.app.sharing import check_sharing
from redisq.app.signature import Parameters, is_of_wrapped, signature_of
from redisq.app.spelling import CALL_HINTS, TASK_HINTS, check_options, known_options
from redisq.codec.hints import shape_of
from redisq.errors import ArgumentsError, ConfigError, DecodeError, WrongArguments
from redisq.gates.descriptor import Cost
from redisq.message import Message
from redisq.types import Seconds

__all__ = ["Sender", "Task", "TaskDecorator", "TaskTable"]

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)
else:
    T = TypeVar("T")

#: What `@task` takes.
OPTIONS = frozenset(field.name for field in fields(TaskOptions))

#: The arguments of one call in `delay_many`: positional ones as a sequence, or named ones as a mapping.
Arguments = Sequence[Any] | Mapping[str, Any]


class Sender(Protocol):
    """What a task needs of its app."""

    def enqueue(self, calls: Calls) -> list[Job]:
        """Store the messages; all of them, or an error."""

    async def aenqueue(self, calls: Calls) -> list[Job]:
        """Store the messages; all of them, or an error."""


class Task(Generic[P, R, T]):
    """A bot-logic function that can be called later, by another process.

    Calling the task itself just calls the function; with `bind=True`, with the context of the job that runs here, if one
    does, else with one of no job. `delay` and `adelay` send the call to the task's queue and keep
    the function's signature for type checkers; the arguments are checked against it when they are sent.

    To type checkers it is `Task[[int, str], Coroutine[Any, Any, bool], bool]` for `async def f(a: int, b: str) -> bool`:
    the parameters, what calling it returns, what its jobs give (left out: anything).
    """

    if not TYPE_CHECKING:
        # The third parameter may be left out; typing knows defaults only from Python 3.13 on.
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(
        self, sender: Callable[[], Sender], handler: Callable[P, R], options: TaskOptions, send: SendOptions = NOW
    ) -> None:
        self._sender = sender
        self._send = send
        self.handler = handler
        self.definition = options
        self.is_async = is_async(handler)
        self.signature = signature_of(handler, bind=options.bind)
        self.shape = shape_of(function_of(handler), self.signature)
        self._parameters = Parameters(self.signature, of_wrapped=is_of_wrapped(function_of(handler)))
        update_wrapper(self, handler)
        if options.bind:
            self.__signature__ = self.signature
        self.gating = gating_of(options, self)

    @property
    def name(self) -> str:
        """What messages call the task."""
        return self.definition.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now."""
        if self.definition.bind:
            bound: Callable[..., R] = self.handler
            return bound(current_context() or detached(self.definition), *args, **kwargs)
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @known_options("a call", lambda task: task._hints())
    def options(
        self,
        *,
        countdown: Seconds | None = None,
        eta: datetime | None = None,
        expires: Seconds | datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        key: object = None,
        limits: Sequence[str] | None = None,
        cost: Cost | None = None,
        group: str | None = None,
        on_dead: Literal["continue", "hold"] | None = None,
        lane_cap: int | None = None,
        dedupe_key: object = None,
        dedupe_ttl: Seconds | None = None,
        dedupe: Literal["return", "replace", "extend", "raise"] | None = None,
    ) -> Task[P, R, T]:
        """Return the same task with other options for its calls. What is None stays as it is.

        Args:
            countdown: Seconds from now until it is due, or a `timedelta`.
            eta: The time when it is due; needs a time zone. In the past: now.
            expires: Seconds from now, a `timedelta`, or a time: if it did not start by then, it is dropped, and counted.
            priority: 0 to 255, higher first.
            queue: Another queue than the task's. A worker must serve it (`-Q`).
            key: The lane itself, not a template: `key=42`; `""`: none.
            limits: Other limits than the task's. As there.
            cost: As the task's.
            group: As the task's.
            on_dead: As the task's.
            lane_cap: As the task's.
            dedupe_key: The key itself, not a template: `dedupe_key=update_id`; `""`: none.
            dedupe_ttl: As the task's.
            dedupe: As the task's.

        Raises:
            ConfigError: An option is out of range, or both `countdown` and `eta` are given.
        """
        send = send_options(self._send, countdown=countdown, eta=eta, expires=expires, priority=priority, queue=queue)
        gates = {
            "key": key, "limits": limits, "cost": cost, "group": group, "on_dead": on_dead, "lane_cap": lane_cap,
            "dedupe_key": dedupe_key, "dedupe_ttl": dedupe_ttl, "dedupe": dedupe,
        }  # fmt: skip
        definition = own_options(self.definition, gates)
        other = copy(self)
        other._send = send
        if definition is not self.definition:
            other.definition = definition
            other.gating = gating_of(definition, other)
        return other

    def _hints(self) -> Mapping[str, str]:
        """What to say of names that are no options of a call."""
        of_task = {name: "it is an option of @task(...)" for name in OPTIONS if name != "name"}
        arguments = dict.fromkeys(self.signature.parameters, "it is an argument: give it to delay(), or in kwargs=")
        return {**of_task, **CALL_HINTS, **arguments}

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Send one call. When it returns, Redis has the message.

        Raises:
            ArgumentsError: The arguments do not fit the function.
            EncodeError: An argument cannot travel.
            MessageTooLarge: They are too large together.
            LaneFull: Its lane has `lane_cap` messages.
            DuplicateJob: Another has its dedupe key, and the task says `dedupe="raise"`.
            BrokerError: Redis did not take it; see `redisq.errors`.
        """
        return self._sender().enqueue(self._calls([self._message(args, kwargs)]))[0]

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Send one call, from async code. As `delay`."""
        return (await self._sender().aenqueue(self._calls([self._message(args, kwargs)])))[0]

    def delay_many(self, calls: Iterable[Arguments]) -> list[Job[T]]:
        """Send many calls, a thousand a round trip: `[(42, "a"), (43, "b")]`, or mappings of named arguments.

        Raises:
            ArgumentsError: Arguments do not fit the function; nothing was sent.
            EncodeError: An argument cannot travel; nothing was sent.
            MessageTooLarge: The arguments of a call are too large together; nothing was sent.
            LaneFull: The lanes of some have `lane_cap` messages; the others were sent.
            DuplicateJob: Others have the dedupe keys of some, and the task says `dedupe="raise"`; the rest were sent.
            PartlyEnqueued: Redis took some thousands of them, and not the others.
            BrokerError: Redis took none.
        """
        return self._sender().enqueue(self._calls(self._messages(calls)))

    async def adelay_many(self, calls: Iterable[Arguments]) -> list[Job[T]]:
        """Send many calls, from async code. As `delay_many`."""
        return await self._sender().aenqueue(self._calls(self._messages(calls)))

    def apply_async(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Job[T]:
        """Send one call, as Celery spells it: `apply_async((42, "hi"), countdown=60)`. Options as in `options`."""
        task: Task[..., Any, T] = self.options(**options)
        return task.delay(*args, **(kwargs or {}))

    async def aapply_async(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Job[T]:
        """Send one call, from async code. As `apply_async`."""
        task: Task[..., Any, T] = self.options(**options)
        return await task.adelay(*args, **(kwargs or {}))

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Accept arguments that the function can be called with.

        Raises:
            ArgumentsError: It cannot.
        """
        self._parameters.check(self.name, args, kwargs)

    def arguments(self, message: Message) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return what the handler is called with for a message, as its annotations want it.

        Raises:
            WrongArguments: They do not fit the handler's parameters: another version of the program sent the message.
        """
        args, kwargs = message.args, message.kwargs or {}
        if self.shape.plain and not kwargs and len(args) in self._parameters.counts:
            return args, kwargs
        try:
            self._parameters.check(self.name, args, kwargs)
            return (args, kwargs) if self.shape.plain else self.shape.revive(args, kwargs)
        except (ArgumentsError, TypeError) as error:
            raise WrongArguments(str(error)) from None
        except DecodeError as error:
            raise WrongArguments(f"task {self.name}: {error}") from error.__cause__

    def _calls(self, messages: list[Message]) -> Calls:
        return Calls(self.definition, self._send, messages, self.shape, self.gating)

    def _message(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Message:
        self.check(args, kwargs)
        return Message(self.name, args, kwargs)

    def _messages(self, calls: Iterable[Arguments]) -> list[Message]:
        return [self._message((), dict(call)) if isinstance(call, Mapping) else self._message(tuple(call), {}) for call in calls]


class Decorator(Protocol):
    """What `@task(...)` with options returns."""

    @overload
    def __call__(self, handler: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, Coroutine[Any, Any, T], T]: ...

    @overload
    def __call__(self, handler: Callable[P, R], /) -> Task[P, R, R]: ...


class BoundDecorator(Protocol):
    """What `@task(bind=True)` returns: callers do not give the context."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> Task[P, Coroutine[Any, Any, T], T]: ...

    @overload
    def __call__(self, handler: Callable[Concatenate[Context, P], R], /) -> Task[P, R, R]: ...


class Options(TypedDict, total=False):
    """The options of `@task`, for type checkers; `TaskOptions` says what each is."""

    name: str | None
    queue: str | None
    max_retries: int
    retry_backoff: float
    retry_backoff_max: float
    timeout: float | None
    soft_timeout: float | None
    priority: int
    expires: float | None
    autoretry_for: tuple[type[BaseException], ...]
    dont_retry_for: tuple[type[BaseException], ...]
    retry_permanent: bool
    ack: Literal["late", "early"]
    result_ttl: float | None
    pool: Literal["process"] | None
    key: str | Callable[..., Any] | None
    limits: Sequence[str]
    cost: Cost | None
    group: str | None
    on_dead: Literal["continue", "hold"]
    lane_cap: int | None
    dedupe_key: str | Callable[..., Any] | None
    dedupe_ttl: Seconds | None
    dedupe: Literal["return", "replace", "extend", "raise"]


class TaskTable(dict[str, Task[..., Any]]):
    """The tasks that were registered in one place, by name.

    Attributes:
        watchers: Called, in the thread that registers, when a task was registered or took the place of another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Callable[[], object]] = []

    def register(self, task: Task[..., Any]) -> None:
        """Add a task, and tell the watchers."""
        self[task.name] = task
        for tell in tuple(self.watchers):
            tell()


class TaskDecorator:
    """Makes functions tasks: `@task`, or `@task(queue=..., max_retries=...)`.

    Args:
        tasks: Where they are registered, by name.
        sender: Returns the app that their calls go through.
    """

    def __init__(self, tasks: TaskTable, sender: Callable[[], Sender]) -> None:
        self._tasks = tasks
        self._sender = sender

    @overload
    def __call__(self, handler: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, Coroutine[Any, Any, T], T]: ...

    @overload
    def __call__(self, handler: Callable[P, R], /) -> Task[P, R, R]: ...

    @overload
    def __call__(self, /, *, bind: Literal[True], **options: Unpack[Options]) -> BoundDecorator: ...

    @overload
    def __call__(self, /, *, bind: Literal[False] = False, **options: Unpack[Options]) -> Decorator: ...

    def __call__(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task.

        Args:
            handler: The function, `async def` or `def`.
            **options: The fields of `TaskOptions`; `name` is the function's name unless given.

        Raises:
            ConfigError: An option is not valid, or another task has the name.
        """
        if handler is None:
            return lambda decorated: self._register(decorated, options)
        return self._register(handler, options)

    def _register(self, handler: Callable[..., Any], options: Mapping[str, Any]) -> Task[..., Any]:
        if isinstance(handler, classmethod):
            raise ConfigError("@task cannot decorate a class method: make it a static method, with @task below @staticmethod")
        if not callable(handler):
            raise ConfigError(f"@task decorates a function, not {handler!r}")
        name = options.get("name") or getattr(handler, "__name__", None)
        if not name:
            raise ConfigError(f"@task of an object of type {type(handler).__name__}: it has no name of its own, give it one, name=")
        refuse_generators(name, handler)
        check_options(f"@task of {name}", options, OPTIONS, TASK_HINTS)
        task = Task(self._sender, handler, TaskOptions(**{**options, "name": name}))
        if name in self._tasks and not _replaces(handler, self._tasks[name].handler):
            known = _place(self._tasks[name].handler)
            raise ConfigError(f"two tasks are called {name!r}: {known} and {_place(handler)}; give one name=")
        if task.definition.group is not None and not task.gating:
            raise ConfigError(f"task {name}: group={task.definition.group!r} is about its limits; give it some with limits=")
        if task.gating:
            check_sharing((*(known for known in self._tasks.values() if known.name != name), task))
        self._tasks.register(task)
        return task


def _replaces(handler: Callable[..., Any], known: Callable[..., Any]) -> bool:
    """Whether a function takes the place of one that was typed in before: a notebook's cell was run again."""
    new, old = (getattr(unwrap(each), "__code__", None) for each in (handler, known))
    if new is None or old is None or new is old:  # the same `def`, twice: a loop makes two tasks of one name
        return False
    return _place(handler) == _place(known) and all(_is_typed_in(unwrap(each)) for each in (handler, known))


def _is_typed_in(function: Callable[..., Any]) -> bool:
    """Whether code was given to an interactive interpreter: it is in `__main__`, and in no file that is there."""
    code: CodeType = function.__code__
    return function.__module__ == "__main__" and not Path(code.co_filename).is_file()


def _place(handler: Callable[..., Any]) -> str:
    return f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', handler)}"
