"""What a task's calls are subject to on their way into the queue: lane, limits, and once at the door."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from redisq.app.settings import TaskOptions
from redisq.broker.commands import Dedupe
from redisq.errors import ConfigError
from redisq.gates.descriptor import Gates
from redisq.gates.template import compile_name
from redisq.types import microseconds

__all__ = ["GATE_OPTIONS", "Entry", "Gating", "gating_of", "own_options"]

#: The options of a task that are about its gates; a call may have its own.
GATE_OPTIONS = ("key", "limits", "cost", "group", "on_dead", "lane_cap", "dedupe_key", "dedupe_ttl", "dedupe")
#: Of these, what is a template in the decorator, and the name itself for a call.
_NAMES = ("key", "dedupe_key")


class Entry(NamedTuple):
    """Lane and limits, the lane's cap and the dedupe key of one call, as the enqueue script takes them."""

    descriptor: str
    lane_cap: int
    dedupe: Dedupe | None


class Gating:
    """The gates of one task, and its dedupe key, compiled.

    Args:
        options: The task's.
        gates: Its lane and limits.
        function: What has the signature that callers see.

    Attributes:
        gates: As given.
        refuses: A call whose dedupe key another one has is an error.
        group: The queues that share its limits; None: its queue has them alone.

    Raises:
        ConfigError: The dedupe key is not valid.
    """

    def __init__(self, options: TaskOptions, gates: Gates, function: Callable[..., Any]) -> None:
        self.gates = gates
        self._options = options
        self._function = function
        self.refuses = options.dedupe == "raise"
        self.group = options.group
        self._prefix = f"{options.name}:"
        self._mode: Literal["ignore", "replace", "extend"] = "ignore"
        if options.dedupe in ("replace", "extend"):
            self._mode = options.dedupe
        self._window = 0 if options.dedupe_ttl is None else microseconds(options.dedupe_ttl, "dedupe_ttl")
        self._name = None
        if options.dedupe_key is not None:
            where = f"task {options.name}: dedupe_key={options.dedupe_key!r}"
            self._name = compile_name(options.dedupe_key, inspect.signature(function), where)

    def at_the_door_alone(self, *, lane: bool) -> Gating | None:
        """The same without limits, and without a lane unless it is to be kept; None: nothing is left of it."""
        options = self._options if lane else replace(self._options, key=None, on_dead="continue", lane_cap=None)
        return gating_of(replace(options, limits=(), cost=None, group=None), self._function)

    @property
    def definitions(self) -> Mapping[str, str]:
        """The rules of its limits, by class."""
        return self.gates.definitions

    def entry(self, head_start: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Entry:
        """Return what one call is subject to.

        Raises:
            ArgumentsError: The arguments give no name or no cost.
        """
        name = self._name and self._name(args, kwargs)
        dedupe = Dedupe(self._prefix + name, self._mode, self._window) if name else None
        return Entry(self.gates.descriptor(head_start, args, kwargs), self.gates.lane_cap or 0, dedupe)


def gating_of(options: TaskOptions, function: Callable[..., Any]) -> Gating | None:
    """Return what a task's calls are subject to; None: nothing, and then it costs nothing.

    Raises:
        ConfigError: An option is not valid.
    """
    gates = Gates(
        options.name,
        function,
        key=options.key,
        limits=options.limits,
        cost=options.cost,
        on_dead=options.on_dead,
        lane_cap=options.lane_cap,
    )
    return Gating(options, gates, function) if gates or options.dedupe_key is not None else None


def own_options(options: TaskOptions, changes: Mapping[str, Any]) -> TaskOptions:
    """Return a task's options with those of one call; what is None there stays. `key` and `dedupe_key` are names, not templates.

    Raises:
        ConfigError: An option is not valid.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    for name in _NAMES:
        if name in given:
            given[name] = _always(given[name], f"task {options.name}: {name}={given[name]!r}")
    return replace(options, **given) if given else options


def _always(value: Any, where: str) -> Callable[[], Any]:
    if callable(value):
        raise ConfigError(f"{where}: of one call it is the name itself, such as 42; templates and functions are for @task")
    return lambda: value
