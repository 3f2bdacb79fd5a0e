"""Tasks without an app in sight, as Celery's `shared_task`: `from redisq import task`.

They belong to every app of the process. A call goes through the current app: of those that the program holds the first one
that was made, until `app.set_current()` names another. An app that a helper makes beside it, or `app.at()`, never takes
their calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from redisq.app.task import TaskDecorator, TaskTable
from redisq.errors import ConfigError

__all__ = ["SHARED", "SharedTasks", "task"]


class SharedTasks:
    """The shared tasks of a process, and its current app. There is one of it, as there is one import system."""

    def __init__(self) -> None:
        self.tasks = TaskTable()
        self._current: Callable[[], Any] = lambda: None
        self._apps: list[Callable[[], Any]] = []

    def set_current(self, app: Any) -> None:
        """Make an app the current one. It lives as long as it is that: else the calls would go elsewhere without a word."""
        self._current = lambda: app

    def offer(self, app: Any) -> None:
        """Make an app the current one while no other is. It is not kept alive by that."""
        self._apps.append(ref(app, self._apps.remove))

    def current(self) -> Any:
        """Return the current app.

        Raises:
            ConfigError: There is none.
        """
        for known in (self._current, *self._apps):
            app = known()
            if app is not None:
                return app
        raise ConfigError("no app yet: make one, app = RedisQ('bot'), in a module that is imported before the call")


SHARED = SharedTasks()

#: `@task` or `@task(queue=..., max_retries=...)`, without an app.
task = TaskDecorator(SHARED.tasks, SHARED.current)
