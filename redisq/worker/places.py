"""Where another process finds a task: under its function's name, or by its app and its own name."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple, TypeVar

from redisq.app.app import RedisQ
from redisq.app.kinds import function_of
from redisq.app.task import Task
from redisq.errors import ConfigError, UnknownTask
from redisq.redact import error_text

__all__ = ["Home", "Place", "find_app", "find_task", "home_of", "place_of"]

T = TypeVar("T")


class Home(NamedTuple):
    """Where an app is: a module, and its name there."""

    module: str
    name: str


class Place(NamedTuple):
    """Where a task is.

    Attributes:
        module: That of its function.
        name: The function's qualified name, where the task is; empty: something else is there, or nothing.
        task: The task's own name.
        home: Its app's, which has it by its own name; None: not needed.
    """

    module: str
    name: str
    task: str
    home: Home | None


def home_of(app: RedisQ) -> Home | None:
    """Return where another process finds the app; None: it is no global of a module."""
    for module, found in list(sys.modules.items()):
        for name, value in list(getattr(found, "__dict__", {}).items()):
            if value is app:
                return Home(module, name)
    return None


def place_of(task: Task[..., Any], home: Home | None) -> Place:
    """Return where another process finds the task.

    Args:
        task: The task.
        home: Where its app is.

    Raises:
        ConfigError: No other process can find it.
    """
    function = function_of(task.handler)
    module, name = str(function.__module__), str(function.__qualname__)
    if "<locals>" in name:
        raise ConfigError(f"task {task.name}: a process pool runs functions of a module's top level, not {name}")
    found = _inside(sys.modules.get(module), name)
    if isinstance(found, Task) and found.handler is task.handler and found.name == task.name:
        return Place(module, name, task.name, None)
    if home is None:
        # As with name = app.task(name="other")(function): the function is there under its name, the task is not.
        raise ConfigError(f"task {task.name}: it is not in module {module} as {name}, and its app is no global of a module")
    return Place(module, "", task.name, home)


def find_task(place: Place) -> Task[..., Any]:
    """Import and return a task that was found there in another process.

    Raises:
        ConfigError: It is not there, or a module cannot be imported.
    """
    if place.home is None:
        return _find(Task, place.module, place.name)
    # It may register the task with the app.
    _import(place.module)
    try:
        return find_app(place.home).find_task(place.task)
    except UnknownTask as error:
        raise ConfigError(f"{error}, in a process of its own: modules {place.home.module} and {place.module}") from None


def find_app(home: Home) -> RedisQ:
    """Import and return an app that was found there in another process.

    Raises:
        ConfigError: It is not there, or its module cannot be imported.
    """
    return _find(RedisQ, *home)


def _find(kind: type[T], module: str, name: str) -> T:
    found = _inside(_import(module), name)
    if not isinstance(found, kind):
        what = kind.__name__.lower()
        raise ConfigError(f"a process pool looks for {what} {name} in module {module}, and it is not there under this name")
    return found


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - also SystemExit: whatever it is, it is no fault of the message
        raise ConfigError(f"module {module} cannot be imported in a process of its own: {error_text(error)}") from None


def _inside(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
