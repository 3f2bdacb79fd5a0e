"""Look at the limits of a queue, set them, pause and resume: what `app.control` and `redisq limits` do, step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from redisq.broker import commands, gates
from redisq.broker.gates import GateView
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import Steps
from redisq.errors import ConfigError
from redisq.gates.limit import parse_rule, show_definition
from redisq.gates.template import gate_name, lane_gate
from redisq.types import Seconds, microseconds

__all__ = ["LimitState", "clear", "limits_of", "pause", "resume", "seconds_or_none", "set_rule"]


@dataclass(frozen=True, slots=True)
class LimitState:
    """How one limit of a queue stands: a limit, its instance for one chat, or a lane that is paused.

    Attributes:
        name: `bot`, `chat:42`; a lane begins with `@`: `@42`.
        rule: What it lets through, e.g. `30/s`; None: any number, until it is paused.
        by_operator: The rule was set by an operator, and goes before the one in the code.
        free: What it lets through now, pauses aside; of a limit with instances: what a new one does. None: any number.
        in_use: Slots that running jobs hold, in all queues that share it.
        waiting: Messages that are held back by it.
        lanes: Lanes that these are in; messages without a lane count as one for each set of limits.
        opens_in: Seconds until the next of them may pass; None: none waits, or it is for a slot or an operator.
        paused_for: Seconds that it is paused for; infinite: until it is resumed; None: it is not.
        group: The group of queues that share it; None: it is the queue's alone.
    """

    name: str
    rule: str | None = None
    by_operator: bool = False
    free: int | None = None
    in_use: int = 0
    waiting: int = 0
    lanes: int = 0
    opens_in: float | None = None
    paused_for: float | None = None
    group: str | None = None


def limits_of(keys: QueueKeys) -> Steps[list[LimitState]]:
    """Read how the limits of a queue stand, by name."""
    views: list[GateView] = yield from gates.read_limits(keys)
    return [
        LimitState(
            view.name,
            show_definition(view.definition) if view.definition else None,
            view.by_operator,
            view.free,
            view.in_use,
            view.messages,
            view.flows,
            view.opens_in,
            view.paused_for or None,
            view.group,
        )
        for view in views
    ]


def pause(keys: QueueKeys, limit: str | None, lane: object, seconds: Seconds | None) -> Steps[None]:
    """Pause a limit, a lane, or, when neither is named, the queue.

    Raises:
        ConfigError: Both are named, or a queue is to be paused for a time.
    """
    name = _gate(limit, lane)
    if name is not None:
        yield from gates.pause(keys, name, None if seconds is None else microseconds(seconds, "seconds"))
    elif seconds is not None:
        raise ConfigError("seconds= is for a limit or a lane; a queue is paused until it is resumed")
    else:
        yield commands.pause(keys, True)


def resume(keys: QueueKeys, limit: str | None, lane: object) -> Steps[None]:
    """Let a limit, a lane, or the queue go on.

    Raises:
        ConfigError: Both are named.
    """
    name = _gate(limit, lane)
    if name is not None:
        yield from gates.resume(keys, name)
    else:
        yield commands.pause(keys, False)


def set_rule(keys: QueueKeys, limit: str, rule: str) -> Steps[str]:
    """Set the rule of a limit, or of one instance; return it as it is shown.

    Raises:
        ConfigError: It is no rule.
    """
    definition = parse_rule(rule).definition
    yield from gates.set_limit(keys, _checked(limit), definition)
    return show_definition(definition)


def clear(keys: QueueKeys, limit: str) -> Steps[None]:
    """Let the rule in the code hold again."""
    yield from gates.clear_limit(keys, _checked(limit))


def seconds_or_none(seconds: float | None) -> float | None:
    """Return seconds as JSON has them: None for what has no end."""
    return None if seconds is None or math.isinf(seconds) else seconds


def _gate(limit: str | None, lane: object) -> str | None:
    if limit is not None and lane is not None:
        raise ConfigError("give limit= or lane=, not both")
    if lane is not None:
        return lane_gate(lane, f"lane={lane!r}")
    return None if limit is None else _checked(limit)


def _checked(limit: str) -> str:
    name = gate_name(limit)
    if not name or name.startswith(":") or name.endswith(":"):
        raise ConfigError(f"limit {limit!r}: want its name, such as bot, or that of an instance, such as chat:42")
    return name
