"""The app: the tasks of one bot, and the Redis that they go through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakKeyDictionary

from redisq.app.job import Job
from redisq.app.outbox import Outbox
from redisq.app.settings import SendOptions, Settings, TaskOptions
from redisq.app.task import Task
from redisq.broker.connection import Server, timeout_from_environment, url_from_environment
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.errors import BrokerError, ConfigError, UnknownTask
from redisq.message import Message
from redisq.types import Seconds, check_name, microseconds

__all__ = ["RedisQ"]

P = ParamSpec("P")
R = TypeVar("R")


class RedisQ:
    """The tasks of one bot.

    Args:
        name: The app's name; also the name of its loggers, and the queue of tasks that name none.
        url: Where Redis is; else `REDISQ_URL`, else what `REDIS_HOST` and its companions say. Looked up when first used.
        namespace: Put before all keys, as `namespace:queue:...`; for several apps in one database.
        lease: Seconds that a worker may be silent before its messages go to another (extended while it is well).
        timeout: Seconds that a call to Redis may take, retries included; else `REDIS_TIMEOUT`, else 5.
        max_connections: Of one process to Redis, for producers.
        priority_step: Seconds of head start that each step of priority gives.
        max_deliveries: A message whose worker died this often is a dead letter.
        server: In place of `url`, `timeout`, `max_connections`: a server of your own making, e.g. in tests.

    Raises:
        ConfigError: A name, duration or URL is not valid.
    """

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
        server: Server | None = None,
    ) -> None:
        self.name = check_name("app", name)
        self.settings = Settings(
            namespace=check_name("namespace", namespace) if namespace else "",
            default_queue=name,
            lease=microseconds(lease, "lease"),
            priority_step=microseconds(priority_step, "priority_step"),
            max_deliveries=max_deliveries,
        )
        self.tasks: dict[str, Task[..., Any]] = {}
        self._timeout = timeout
        self._max_connections = max_connections
        self._server = server or (self._server_at(url) if url else None)
        self._lock = threading.Lock()
        self._connector: Connector | None = None
        self._async_connectors: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnector] = WeakKeyDictionary()
        self._keys: dict[str, QueueKeys] = {}

    def __repr__(self) -> str:
        return f"<redisq app {self.name}>"

    @overload
    def task(self, handler: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        max_retries: int = 3,
        retry_backoff: float = 5.0,
        retry_backoff_max: float = 600.0,
        timeout: float | None = 900.0,
        priority: int = 0,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task, as `@app.task` or `@app.task(queue=..., max_retries=...)`.

        Args:
            handler: The function, `async def` or `def`.
            **options: `name` (the function's name), `queue` (the app's name), and the fields of `TaskOptions`.

        Raises:
            ConfigError: An option is not valid, or another task has the name.
        """
        if handler is None:
            return lambda decorated: self._register(decorated, options)
        return self._register(handler, options)

    def _register(self, handler: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        if not callable(handler):
            raise ConfigError(f"@task decorates a function, not {handler!r}")
        name = options.pop("name", None) or handler.__name__
        queue = options.pop("queue", None) or self.settings.default_queue
        try:
            task = Task(self, handler, TaskOptions(name=name, queue=queue, **options))
        except TypeError as error:
            raise ConfigError(f"task {name}: {error}") from None
        if name in self.tasks:
            other = self.tasks[name].handler
            raise ConfigError(f"two tasks are called {name!r}: {_place(other)} and {_place(handler)}; give one name=")
        self.tasks[name] = task
        return task

    def find_task(self, name: str) -> Task[..., Any]:
        """Return the task of that name.

        Raises:
            UnknownTask: This app has none.
        """
        try:
            return self.tasks[name]
        except KeyError:
            raise UnknownTask(f"app {self.name} has no task {name!r}; it has {', '.join(sorted(self.tasks)) or 'none'}") from None

    @property
    def queues(self) -> list[str]:
        """The queues that its tasks are sent to."""
        return list(dict.fromkeys(task.definition.queue for task in self.tasks.values())) or [self.settings.default_queue]

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
        loop = asyncio.get_running_loop()
        connector = self._async_connectors.get(loop)
        if connector is None:
            connector = self._async_connectors[loop] = self.server.async_connector("producer")
        return connector

    def enqueue(self, options: TaskOptions, send: SendOptions, messages: list[Message]) -> list[Job]:
        """Store messages of one task. Users call `Task.delay`."""
        outbox = self._outbox(options, send, messages)
        results: list[Any] = []
        for command in outbox.commands:
            with _kept(results):
                results += self.connector.execute_many((command,))
        return outbox.jobs(results)

    async def aenqueue(self, options: TaskOptions, send: SendOptions, messages: list[Message]) -> list[Job]:
        """Store messages of one task, from async code. Users call `Task.adelay`."""
        outbox = self._outbox(options, send, messages)
        results: list[Any] = []
        for command in outbox.commands:
            with _kept(results):
                results += await self.async_connector.execute_many((command,))
        return outbox.jobs(results)

    def _outbox(self, options: TaskOptions, send: SendOptions, messages: list[Message]) -> Outbox:
        return Outbox(self.keys(options.queue), options, send, messages, self.settings.priority_step)

    def close(self) -> None:
        """Close the producers' connections of sync code. The app can be used again."""
        with self._lock:
            connector, self._connector = self._connector, None
        if connector:
            connector.close()

    async def aclose(self) -> None:
        """Close the producers' connections of the running loop. The app can be used again."""
        connector = self._async_connectors.pop(asyncio.get_running_loop(), None)
        if connector:
            await connector.aclose()


@contextmanager
def _kept(results: list[Any]) -> Iterator[None]:
    """Keep an error as that call's result: what was accepted before it must not be forgotten."""
    try:
        yield
    except BrokerError as error:
        results.append(error)


def _place(handler: Callable[..., Any]) -> str:
    return f"{getattr(handler, '__module__', '?')}.{getattr(handler, '__qualname__', handler)}"
