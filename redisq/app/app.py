"""The app: the tasks of one bot, and the Redis that they go through."""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from redisq.app.calls import Calls
from redisq.app.control import Control
from redisq.app.gating import GATE_OPTIONS, gating_of, own_options
from redisq.app.hooks import Hooks
from redisq.app.job import Job
from redisq.app.loops import Loops
from redisq.app.middleware import Middleware, OutgoingCall
from redisq.app.outbox import Outbox
from redisq.app.settings import NOW, SendOptions, Settings, TaskOptions, send_options
from redisq.app.shared import SHARED
from redisq.app.sharing import definitions_of, group_of
from redisq.app.spelling import APP_HINTS, CALL_HINTS, check_options, known_options
from redisq.app.task import Task, TaskDecorator, TaskTable
from redisq.broker.connection import Server, timeout_from_environment, url_from_environment
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.forks import after_fork
from redisq.broker.keys import QueueKeys
from redisq.broker.registry import Registry
from redisq.codec.limits import MAX_BYTES
from redisq.errors import BrokerError, ConfigError, UnknownTask
from redisq.gates.limit import Limit
from redisq.message import Message
from redisq.types import Seconds, check_name, microseconds

__all__ = ["RedisQ"]


class RedisQ:
    """The tasks of one bot.

    Args:
        name: The app's name; also the name of its loggers, and the queue of tasks that name none.
        url: Where Redis is; else `REDISQ_URL`, else what `REDIS_HOST` and its companions say. Looked up when first used.
        namespace: Put before all keys, as `namespace:queue:...`; for several apps in one database.
        lease: Seconds that a worker may be silent before its messages go to another (extended while it is well).
        timeout: Seconds that a call to Redis may take, retries included; else `REDIS_TIMEOUT`, else 5. While bytes of a large
            message move over a slow link its time begins anew, up to two minutes.
        max_connections: Of one process to Redis, for producers.
        priority_step: Seconds of head start that each step of priority gives.
        max_deliveries: A message whose worker died this often is a dead letter. While it runs apart, in a process of its own,
            only the death of that counts, and twice as many of the worker.
        max_bytes: A message has no more bytes than this, nor a result.
        middleware: Steps of your own on the way of each message; the first is the outermost.
        server: In place of `url`, `timeout`, `max_connections`: a server of your own making, e.g. in tests.

    Raises:
        ConfigError: A name, duration or URL is not valid.
    """

    @known_options("RedisQ", lambda _: APP_HINTS)
    def __init__(
        self,
        name: str,
        *,
        url: str | None = None,
        namespace: str = "",
        lease: Seconds = 30,
        timeout: float | None = None,
        max_connections: int = 50,
        priority_step: Seconds = 60,
        max_deliveries: int = 3,
        max_bytes: int = MAX_BYTES,
        middleware: Sequence[Middleware] = (),
        server: Server | None = None,
    ) -> None:
        self.name = check_name("app", name)
        self.settings = Settings(
            namespace=check_name("namespace", namespace) if namespace else "",
            default_queue=name,
            lease=microseconds(lease, "lease"),
            priority_step=microseconds(priority_step, "priority_step"),
            max_deliveries=max_deliveries,
            max_bytes=max_bytes,
        )
        #: The hooks of its middleware. A worker takes them when it starts.
        self.hooks = Hooks(name, middleware)
        self._own = TaskTable()
        self._timeout = timeout
        self._max_connections = max_connections
        self._server = server or (self._server_at(url) if url else None)
        self._connector: Connector | None = None
        self._forget_lock()
        after_fork(self._forget_lock)
        self._loops = self._new_loops()
        self._keys: dict[str, QueueKeys] = {}
        self.registry = Registry(self.settings.namespace)
        #: Ask the workers, pause and resume queues.
        self.control = Control(self)
        #: `@app.task` or `@app.task(queue=..., max_retries=...)`.
        self.task = TaskDecorator(self._own, lambda: self)
        #: The app that a module made: itself, or what `at` made it from. Child processes find that one.
        self.original = self
        SHARED.offer(self)

    def _forget_lock(self) -> None:
        # In a forked child: a thread of the parent may have held it.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<redisq app {self.name}>"

    def set_current(self) -> None:
        """Send the calls of shared tasks (`redisq.task`) through this app from now on, as Celery's method of this name.

        Without it they go through the app that this process made first.
        """
        SHARED.set_current(self)

    def add_middleware(self, *middleware: Middleware) -> None:
        """Add middleware inside of what there is. A worker takes it when it starts: add it before.

        Raises:
            ConfigError: One is no `Middleware`.
        """
        self.hooks = Hooks(self.name, (*self.hooks.middleware, *middleware))

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All tasks, by name: its own, and the shared ones (`redisq.task`), which its own hide."""
        return ChainMap(self._own, SHARED.tasks)

    def find_task(self, name: str) -> Task[..., Any]:
        """Return the task of that name.

        Raises:
            UnknownTask: This app has none.
        """
        # Not by `tasks`: to make that costs more than all the rest.
        task = self._own.get(name) or SHARED.tasks.get(name)
        if task is not None:
            return task
        raise UnknownTask(f"app {self.name} has no task {name!r}; it has {', '.join(sorted(self.tasks)) or 'none'}")

    def watch_tasks(self, tell: Callable[[], object]) -> Callable[[], None]:
        """Call `tell` when a task was registered or took the place of another, its own or a shared one.

        Args:
            tell: Called in the thread that registers the task.

        Returns:
            What ends this.
        """
        tables = (self._own, SHARED.tasks)
        for table in tables:
            table.watchers.append(tell)

        def end() -> None:
            for table in tables:
                table.watchers.remove(tell)

        return end

    @property
    def queues(self) -> list[str]:
        """The queues that its tasks are sent to."""
        return list(dict.fromkeys(self.queue_of(task.definition) for task in self.tasks.values())) or [self.settings.default_queue]

    def queue_of(self, options: TaskOptions, send: SendOptions = NOW) -> str:
        """Where a call goes: where the call says, else its task, else the app's own queue."""
        return send.queue or options.queue or self.settings.default_queue

    def limits_of(self, queue: str) -> dict[str, str]:
        """The rules of the limits of the tasks that are sent to a queue, by name.

        Raises:
            ConfigError: Two tasks give one limit two rules.
        """
        return definitions_of(task for task in self.tasks.values() if self.queue_of(task.definition) == queue)

    def group_of(self, queue: str) -> str | None:
        """The group whose limits a queue shares, as far as the tasks here say."""
        return group_of(task for task in self.tasks.values() if self.queue_of(task.definition) == queue)

    def limit_names(self, queue: str) -> set[str]:
        """The names of the limits of the tasks that are sent to a queue, also of those without a rule."""
        return {limit.name for limit in self._limits({queue})}

    def limits_near(self, queue: str) -> list[Limit]:
        """The limits of the tasks that are sent to a queue, or to another one of its group."""
        definitions = [task.definition for task in self.tasks.values()]
        groups = {each.group for each in definitions if self.queue_of(each) == queue}
        return self._limits({queue, *(self.queue_of(each) for each in definitions if each.group and each.group in groups)})

    def _limits(self, queues: Collection[str]) -> list[Limit]:
        tasks = [task for task in self.tasks.values() if self.queue_of(task.definition) in queues]
        return [limit for task in tasks if task.gating for limit in task.gating.gates.limits]

    def keys(self, queue: str) -> QueueKeys:
        """The keys of one queue."""
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = QueueKeys(queue, self.settings.namespace)
        return keys

    @property
    def server(self) -> Server:
        """Where Redis is.

        Raises:
            ConfigError: Nothing says where, or what says it is not valid.
        """
        if self._server is None:
            self._server = self._server_at(url_from_environment())
        return self._server

    def _server_at(self, url: str) -> Server:
        timeout = timeout_from_environment() if self._timeout is None else self._timeout
        return Server(url, timeout=timeout, max_connections=self._max_connections)

    @property
    def connector(self) -> Connector:
        """The producers' connector, made when first used."""
        with self._lock:
            if self._connector is None:
                self._connector = self.server.connector("producer")
            return self._connector

    @property
    def async_connector(self) -> AsyncConnector:
        """The producers' connector in the running event loop, made when first used."""
        return self._loops.here.connector

    def _new_loops(self) -> Loops:
        return Loops(lambda: self.server.async_connector("producer"))

    def at(self, *, url: str | None = None, namespace: str | None = None) -> RedisQ:
        """Return an app with the same tasks and settings, on another Redis or in another namespace.

        Shared tasks (`redisq.task`) stay with the current app; `set_current` moves them.

        Args:
            url: Where Redis is; None: where it is for this app.
            namespace: Put before all keys; None: as in this app.

        Raises:
            ConfigError: The URL or the namespace is not valid.
        """
        settings = self.settings
        other = RedisQ(
            self.name,
            url=url,
            namespace=settings.namespace if namespace is None else namespace,
            timeout=self._timeout,
            max_connections=self._max_connections,
            middleware=self.hooks.middleware,
            server=None if url else self._server,
        )
        other.original = self.original
        other.settings = replace(settings, namespace=other.settings.namespace)
        for name, task in self._own.items():
            moved = copy(task)
            moved._sender = lambda: other
            other._own[name] = moved
        return other

    def send(self, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Job:
        """Send a call by its task's name; the task's code need not be here. As Celery's `send_task`.

        Args:
            name: The task's name.
            args: Positional arguments, plain values.
            kwargs: Named arguments, plain values.
            **options: As in `Task.options`. Without `queue`, a task that is not registered here goes to the app's own
                queue. Nothing is known of its gates either: say `key=`, `limits=`, `dedupe_key=` for those it has.

        Raises:
            EncodeError: An argument cannot travel.
            BrokerError: Redis did not take it.
        """
        return self.enqueue(self._by_name(name, args, kwargs, options))[0]

    async def asend(self, name: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Job:
        """Send a call by its task's name, from async code. As `send`."""
        return (await self.aenqueue(self._by_name(name, args, kwargs, options)))[0]

    def _by_name(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, options: dict[str, Any]) -> Calls:
        known = self.tasks.get(name)
        registered = known.definition if known else TaskOptions(name=name)
        if not _SEND_OPTIONS.issuperset(options):
            arguments = dict.fromkeys(known.signature.parameters if known else (), "it is an argument: give it in kwargs=")
            check_options(f"send of {name}", options, _SEND_OPTIONS, {**CALL_HINTS, **arguments})
        definition = own_options(registered, {option: options.pop(option, None) for option in GATE_OPTIONS})
        send = send_options(NOW, **options)
        gating = known.gating if known else None
        if definition is not registered:
            gating = gating_of(definition, known or _anything)
        return Calls(
            definition, send, [Message(name, tuple(args), dict(kwargs or {}))], known.shape if known else None, gating, True
        )

    def enqueue(self, calls: Calls) -> list[Job]:
        """Store messages of one task. Users call `Task.delay`."""
        outbox = self._outbox(calls)
        results: list[Any] = []
        for command in outbox.commands:
            with _kept(results):
                results += self.connector.execute_many((command,))
        return outbox.jobs(results)

    async def aenqueue(self, calls: Calls) -> list[Job]:
        """Store messages of one task, from async code, after those of earlier calls of this loop. Users call `Task.adelay`."""
        outbox = self._outbox(calls)
        return outbox.jobs(await self._loops.here.writer.execute_many(outbox.commands))

    def _outbox(self, calls: Calls) -> Outbox:
        options, send, messages, shape, gating, by_name = calls
        queue = self.queue_of(options, send)
        if send.queue and gating and gating.group and (group := self.group_of(queue)) and group != gating.group:
            raise ConfigError(
                f"task {options.name}: group={gating.group!r}, and queue {queue} is in group {group!r}, where its limits are;"
                " send it to another queue, or with that group="
            )
        sends = [send] * len(messages)
        if self.hooks.enqueue:
            outgoing = [self._outgoing(queue, send, message) for message in messages]
            messages = [Message(call.task, call.args, dict(call.kwargs)) for call in outgoing]
            sends = [call.send for call in outgoing]
        jobs = partial(Job, self, task=options.name, queue=queue, build=shape.result if shape else None)
        return Outbox(self.keys(queue), options, sends, messages, shape, self.settings, jobs, gating, by_name)

    def _outgoing(self, queue: str, send: SendOptions, message: Message) -> OutgoingCall:
        call = OutgoingCall(message.task, queue, message.args, MappingProxyType(message.kwargs or {}), send)
        sent = self.hooks.outgoing(call)
        known = self.tasks.get(call.task)
        if known and (sent.args, sent.kwargs) != (call.args, call.kwargs):
            known.check(sent.args, sent.kwargs)
        return sent

    def job(self, id: str, *, queue: str | None = None, task: str = "?") -> Job:
        """Return a job by its id, e.g. one that another process sent.

        Args:
            id: The job's id.
            queue: The queue that it was sent to; None: the app's own.
            task: The task's name, for texts; if the task is known here, what its return annotation names is built of a result.
        """
        known = self.tasks.get(task)
        build = known.shape.result if known else None
        return Job(self, check_name("job", id), task, queue or self.settings.default_queue, build)

    def close(self) -> None:
        """Close the producers' connections of sync code. The app can be used again.

        Calls of other threads end first, and leave no connection open.
        """
        with self._lock:
            connector, self._connector = self._connector, None
        if connector:
            connector.close()

    async def aclose(self) -> None:
        """Close the producers' connections of the running loop. The app can be used again.

        Enqueues that wait behind others fail with `BrokerUnavailable`; other calls that are on their way end first.
        """
        await self._loops.aclose()


#: The options of `send`, besides the task's arguments.
_SEND_OPTIONS = frozenset((*GATE_OPTIONS, "countdown", "eta", "expires", "priority", "queue"))


def _anything(*args: Any, **kwargs: Any) -> None:
    """Stands for a task whose code is not here."""


@contextmanager
def _kept(results: list[Any]) -> Iterator[None]:
    """Keep an error as that call's result: what was accepted before it must not be forgotten."""
    try:
        yield
    except BrokerError as error:
        results.append(error)
