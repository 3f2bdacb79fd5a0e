"""Which tasks share their limits: those of one queue, and those of queues that are in one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from redisq.errors import ConfigError
from redisq.gates.limit import show_definition

if TYPE_CHECKING:
    from redisq.app.task import Task

__all__ = ["check_sharing", "definitions_of", "group_of"]


def definitions_of(tasks: Iterable[Task[..., Any]]) -> dict[str, str]:
    """Return the rules of the limits of tasks that share them, by class.

    Raises:
        ConfigError: Two tasks give one limit two rules.
    """
    found: dict[str, tuple[str, str]] = {}
    for task in tasks:
        for name, rule in task.gating.definitions.items() if task.gating else ():
            known, where = found.setdefault(name, (rule, task.name))
            if known != rule:
                raise ConfigError(
                    f"task {task.name}: limit {name!r} is {show_definition(rule)} here and {show_definition(known)} in task"
                    f" {where}, which shares it: a limit has one rule; rename one"
                )
    return {name: rule for name, (rule, _) in found.items()}


def group_of(tasks: Iterable[Task[..., Any]]) -> str | None:
    """Return the group that the tasks of one queue put it in; None: they do not.

    Raises:
        ConfigError: Two tasks name two.
    """
    found: Task[..., Any] | None = None
    for task in tasks:
        if task.definition.group is None:
            continue
        if found and found.definition.group != task.definition.group:
            raise ConfigError(
                f"task {task.name}: group={task.definition.group!r} here and {found.definition.group!r} in task {found.name}, on"
                " the same queue: a queue is in one group; give one of them another queue="
            )
        found = task
    return found.definition.group if found else None


def check_sharing(tasks: Iterable[Task[..., Any]]) -> None:
    """Accept tasks whose limits go together.

    Raises:
        ConfigError: Two tasks of a queue name two groups, or two that share a limit give it two rules.
    """
    by_queue: dict[str | None, list[Task[..., Any]]] = defaultdict(list)
    for task in tasks:
        by_queue[task.definition.queue].append(task)
    by_group: dict[str, list[Task[..., Any]]] = defaultdict(list)
    for alike in by_queue.values():
        group = group_of(alike)
        if group is None:
            definitions_of(alike)
        else:
            by_group[group] += alike
    for alike in by_group.values():
        definitions_of(alike)
