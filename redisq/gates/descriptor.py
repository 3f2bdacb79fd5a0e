"""The gates of one task, and the line of text that tells the scripts of one call's.

::

    descriptor = head_start " " kind " " flow {" " need}
    kind       = "C" (a lane; the next goes on when a message dies) | "H" (a lane that waits then) | "F" (no lane)
    flow       = "@" lane | gate {"+" gate}     longer than 128 bytes: "#" and 32 hex digits of its sha256
    need       = "R" gate "," cost              a rate; cost 0: it can only be paused
               | "S" gate ",1"                  a slot
    gate       = class [":" instance]

What a gate lets through is not in it: rates change while messages wait.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from redisq.errors import ArgumentsError, ConfigError
from redisq.gates.limit import Limit, parse_limit
from redisq.gates.template import Get, Name, compile_argument, compile_name, shorten

__all__ = ["MAX_COST", "Cost", "Gates"]

#: What one call may cost, at most.
MAX_COST = 1_000_000

#: A number, the name of the argument that holds it, or a function of some of the arguments.
OneCost = int | str | Callable[..., int]
#: The same, or one for each limit by its class.
Cost = OneCost | Mapping[str, OneCost]

# Of a call's arguments: the gate and the need, ready to be joined; None: the call is not counted there.
_Need = Callable[[Sequence[Any], Mapping[str, Any]], tuple[str, str] | None]


class Gates:
    """The lane and the limits of one task, compiled.

    Args:
        task: Its name, for errors.
        handler: Its function.
        key: Its lane: a template (`"{chat_id}"`) or a function of some of its arguments. None, or empty text, as the
            name: this call has no lane.
        limits: As in `redisq.gates.limit`. An instance that is None or empty: this call is not counted in it.
        cost: What a call takes out of a rate, 1 to 1,000,000. By class (`{"tokens": "n_tokens"}`) when there are several.
        on_dead: When the head of a lane is dead for good: `continue` with the next, or `hold` the lane for an operator.
        lane_cap: So many messages wait and run in one lane at most; None: any number.

    Attributes:
        limits: Those that were parsed.
        definitions: Class -> definition, of the rates and slots.
        lane_cap: As given.
        has_lane: A key was given.

    Raises:
        ConfigError: An option is not valid.
    """

    def __init__(
        self,
        task: str,
        handler: Callable[..., Any],
        *,
        key: str | Callable[..., Any] | None = None,
        limits: Iterable[str] = (),
        cost: Cost | None = None,
        on_dead: Literal["continue", "hold"] = "continue",
        lane_cap: int | None = None,
    ) -> None:
        signature = inspect.signature(handler)
        if isinstance(limits, str):
            raise ConfigError(f"task {task}: limits={limits!r}: want a list: limits=[{limits!r}]")
        if on_dead not in ("continue", "hold"):
            raise ConfigError(f"task {task}: on_dead={on_dead!r}: want 'continue' or 'hold'")
        if lane_cap is not None and (type(lane_cap) is not int or lane_cap < 1):
            raise ConfigError(f"task {task}: lane_cap={lane_cap!r}: want a whole number > 0, or None")
        if key is None and (on_dead != "continue" or lane_cap is not None):
            raise ConfigError(f"task {task}: on_dead= and lane_cap= are about a lane; give it one with key=")
        self.limits = tuple(parse_limit(text, task) for text in limits)
        names = [limit.name for limit in self.limits]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"task {task}: two limits are called {name!r}; their rules would be one another's: rename one")
        self.definitions = {limit.name: limit.definition for limit in self.limits if limit.kind != "pause"}
        self.lane_cap = lane_cap
        self.has_lane = key is not None
        self._kind = "H" if on_dead == "hold" else "C"
        self._key = None if key is None else compile_name(key, signature, f"task {task}: key={key!r}")
        costs = _costs(task, self.limits, cost)
        self._needs = [_need(task, limit, costs.get(limit.name, 1), signature) for limit in self.limits]

    def __bool__(self) -> bool:
        """There is a lane or a limit."""
        return self.has_lane or bool(self.limits)

    def descriptor(self, head_start: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the line for one call; empty: it has neither lane nor limit.

        Args:
            head_start: Microseconds that its priority puts it ahead.
            args: The call's positional arguments; that they fit the handler was checked before.
            kwargs: Its named ones.

        Raises:
            ArgumentsError: The arguments give no name or no cost.
        """
        needs = [found for need in self._needs if (found := need(args, kwargs))]
        lane = self._key and self._key(args, kwargs)
        if lane:
            line = f"{head_start} {self._kind} @{lane}"
        elif needs:
            line = f"{head_start} F {shorten('+'.join([gate for gate, _ in needs]))}"
        else:
            return ""
        for _, need in needs:
            line += need
        return line

    def counted(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Limit, str]]:
        """Return the limits that a call is counted in, in the order of the task, each with its gate.

        Raises:
            ArgumentsError: The arguments give no name or no cost.
        """
        pairs = [(limit, need(args, kwargs)) for limit, need in zip(self.limits, self._needs, strict=True)]
        return [(limit, found[0]) for limit, found in pairs if found]

    def lane(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the call's lane as it is named in Redis; None: it has none.

        Raises:
            ArgumentsError: The arguments give no name.
        """
        return self._key and self._key(args, kwargs)


def _costs(task: str, limits: Sequence[Limit], cost: Cost | None) -> Mapping[str, OneCost]:
    """The cost for each class that one was given for."""
    rates = [limit.name for limit in limits if limit.kind == "rate"]
    if cost is None:
        return {}
    if not isinstance(cost, Mapping):
        if len(rates) != 1:
            which = f"has the rates {', '.join(rates)}: say which, as cost={{{rates[0]!r}: {cost!r}}}" if rates else "has no rate"
            raise ConfigError(f"task {task}: cost={cost!r}: the task {which}")
        return {rates[0]: cost}
    for name in cost:
        if name not in rates:
            raise ConfigError(
                f"task {task}: cost of {name!r}: the task has no rate of that name; it has {', '.join(rates) or 'none'}"
            )
    return cost


def _need(task: str, limit: Limit, cost: OneCost, signature: inspect.Signature) -> _Need:
    where = f"task {task}: limit {limit.text!r}"
    letter = "S" if limit.kind == "slots" else "R"
    name = compile_name(limit.instance, signature, where) if limit.instance else None
    if limit.kind == "pause":
        return _constant(letter, limit.name, name, 0)
    where = f"task {task}: cost of {limit.name!r}"
    if isinstance(cost, int):
        try:
            return _constant(letter, limit.name, name, _checked(cost, where))
        except ArgumentsError as error:
            raise ConfigError(str(error)) from None
    if not isinstance(cost, str) and not callable(cost):
        raise ConfigError(f"{where}: {cost!r}: want a whole number, the name of the argument that holds it, or a function")
    return _counted(limit.name, name, compile_argument(cost, signature, where), where)


def _constant(letter: str, name: str, instance: Name | None, cost: int) -> _Need:
    if instance is None:
        found = (name, f" {letter}{name},{cost}")
        return lambda _args, _kwargs: found
    start, end = f" {letter}", f",{cost}"

    def need(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, str] | None:
        if (of := instance(args, kwargs)) is None:
            return None
        gate = f"{name}:{of}"
        return gate, start + gate + end

    return need


def _counted(name: str, instance: Name | None, cost: Get, where: str) -> _Need:
    def need(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, str] | None:
        gate = name
        if instance is not None:
            if (of := instance(args, kwargs)) is None:
                return None
            gate = f"{name}:{of}"
        return gate, f" R{gate},{_checked(cost(args, kwargs), where)}"

    return need


def _checked(cost: Any, where: str) -> int:
    if type(cost) is not int or not 1 <= cost <= MAX_COST:
        raise ArgumentsError(f"{where}: {cost!r}: want a whole number from 1 to {MAX_COST}")
    return cost
