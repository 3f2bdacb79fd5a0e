"""The grammar of limits: `"bot:30/s"`, `"chat:{chat_id}:1/s burst 3"`, `"llm: 8 at once"`, `"model:{model}"`.

::

    limit    = class [":" instance] [":" rule]      without a rule it limits nothing: it can be paused
    rule     = count "/" [number] unit ["burst" count]      so many in a period
             | count "at once"                              so many leases at a time
    unit     = "s" | "m" | "h" | "d"
    class    = letters, digits and _ . @ -
    instance = letters, digits, _ . @ - and :, and {fields} of the task's arguments
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from redisq.errors import ConfigError
from redisq.types import MAX_MICROSECONDS

__all__ = ["Limit", "Rule", "parse_limit", "parse_rule", "show_definition"]

Kind = Literal["rate", "slots", "pause"]

#: A rate above this gets a default burst of what it grants in `_BURST_SECONDS`.
_STEADY_PER_SECOND = 20
#: Workers wake a few milliseconds late; without so much burst, what a late wake-up missed would be lost (gates.md, 7).
_BURST_SECONDS = Fraction(1, 20)

_MAX_COUNT = 1_000_000_000
_MAX_SLOTS = 1_000_000
_SHORTEST_PERIOD = 1_000
_UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}

_CLASS = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_INSTANCE = re.compile(r"(?:[A-Za-z0-9_.@:-]|\{[^{}]*\})+")
_RATE = re.compile(r"(\d+) ?/ ?(\d+(?:\.\d+)?)? ?([a-z]+)(?: burst (\d+))?")
_SLOTS = re.compile(r"(\d+) at once")
# A colon that stands outside of braces.
_COLON = re.compile(r":(?![^{}]*\})")

_EXAMPLES = 'write "bot:30/s", "chat:{chat_id}:1/s burst 3", "llm: 8 at once", or "model:gpt" for one that can only be paused'


@dataclass(frozen=True, slots=True)
class Rule:
    """How much a limit lets through.

    Attributes:
        kind: `rate`: so many in a period; `slots`: so many at once; `pause`: any number, until an operator or a 429 pauses it.
        count: Grants a period, or slots; 0 for `pause`.
        period: Microseconds; 0 unless it is a rate.
        burst: Grants that may come at once after a quiet time; 0 unless it is a rate.
    """

    kind: Kind
    count: int = 0
    period: int = 0
    burst: int = 0

    @property
    def definition(self) -> str:
        """The rule as Redis stores it: `count period_us burst`, or `count`, or nothing."""
        if self.kind == "rate":
            return f"{self.count} {self.period} {self.burst}"
        return str(self.count) if self.kind == "slots" else ""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a task.

    Attributes:
        name: Its class: what definitions and operators call it.
        instance: Template of what it is counted for, e.g. `{chat_id}`; empty: it is one for all calls.
        rule: How much it lets through.
        text: As it was written.
    """

    name: str
    instance: str
    rule: Rule
    text: str

    @property
    def gate(self) -> str:
        """Its name as handlers and operators write it, with the template of its instance: `chat:{chat_id}`."""
        return f"{self.name}:{self.instance}" if self.instance else self.name

    def has(self, gate: str) -> bool:
        """Whether a pause of this gate, `bot` or `chat:42`, holds back calls that are counted in this limit."""
        name, _, instance = gate.partition(":")
        return name == self.name and bool(not instance or self.instance)

    @property
    def kind(self) -> Kind:
        """As its rule's."""
        return self.rule.kind

    @property
    def count(self) -> int:
        """As its rule's."""
        return self.rule.count

    @property
    def period(self) -> int:
        """As its rule's, in microseconds."""
        return self.rule.period

    @property
    def burst(self) -> int:
        """As its rule's."""
        return self.rule.burst

    @property
    def definition(self) -> str:
        """As its rule's."""
        return self.rule.definition


def parse_limit(text: str, task: str) -> Limit:
    """Read one limit of a task. The instance's fields are checked where it is compiled.

    Raises:
        ConfigError: It is none; the message names the task and shows what one looks like.
    """
    where = f"task {task}: limit {text!r}"
    if not isinstance(text, str):
        raise ConfigError(f"{where}: want text; {_EXAMPLES}")
    name, *rest = [part.strip() for part in _COLON.split(text.strip())]
    if not _CLASS.fullmatch(name):
        raise ConfigError(f"{where}: it begins with its name, of the characters A-Z a-z 0-9 _ . @ -, then a colon; {_EXAMPLES}")
    rule = _rule(rest[-1], where) if rest else None
    instance = ":".join(rest[:-1] if rule else rest)
    if rest and not instance and (rule is None or len(rest) > 1):
        raise ConfigError(f"{where}: there is nothing after a colon; {_EXAMPLES}")
    if instance and not _INSTANCE.fullmatch(instance):
        raise ConfigError(
            f"{where}: {instance!r} is neither a rate (30/s, 20/m burst 3), nor slots (8 at once), nor a name; {_EXAMPLES}"
        )
    # Somebody who wrote "bot:30" meant a limit; a gate called 30 that never shuts would be a bad surprise.
    if rule is None and rest and rest[-1].isdigit():
        raise ConfigError(f"{where}: {rest[-1]} of what? {rest[-1]}/s, {rest[-1]}/m, or {rest[-1]} at once; {_EXAMPLES}")
    return Limit(name, instance, rule or Rule("pause"), text)


def parse_rule(text: str) -> Rule:
    """Read what an operator sets a limit to: `30/s`, `1/s burst 3`, `8 at once`.

    Raises:
        ConfigError: It is no rule.
    """
    rule = _rule(text.strip(), f"limit {text!r}")
    if rule is None:
        raise ConfigError(f"limit {text!r}: want a rate (30/s, 20/m burst 3, 5/10s) or slots (8 at once)")
    return rule


def show_definition(definition: str) -> str:
    """Return a stored definition as `parse_rule` reads it; what is none comes back as it is."""
    numbers = definition.split()
    if not all(number.isdigit() for number in numbers):
        return definition
    if len(numbers) == 1:
        return f"{definition} at once"
    if len(numbers) != 3:
        return definition
    count, period, burst = (int(number) for number in numbers)
    for unit in reversed(_UNITS):
        if period and period % _UNITS[unit] == 0:
            length = str(period // _UNITS[unit])
            break
    else:
        unit, length = "s", f"{period / 1_000_000:f}".rstrip("0")
    shown = f"{count}/{'' if length == '1' else length}{unit}"
    return shown if burst == _default_burst(count, period) else f"{shown} burst {burst}"


def _rule(text: str, where: str) -> Rule | None:
    """The rule; None when the text looks like none."""
    text = " ".join(text.split())
    if slots := _SLOTS.fullmatch(text):
        return Rule("slots", _whole(slots[1], _MAX_SLOTS, where))
    if not (rate := _RATE.fullmatch(text)):
        return None
    count_text, length, unit, burst_text = rate.groups()
    if unit not in _UNITS:
        raise ConfigError(f"{where}: /{length or ''}{unit}: want s, m, h or d, or so many of them: /10s, /0.5s, /2m")
    period = round(Fraction(length or 1) * _UNITS[unit])
    count = _whole(count_text, _MAX_COUNT, where)
    if period < _SHORTEST_PERIOD:
        raise ConfigError(f"{where}: /{length}{unit}: want a period of 0.001 s at least")
    burst = _default_burst(count, period) if burst_text is None else _whole(burst_text, _MAX_COUNT, where)
    # The script multiplies the two, and its numbers are exact up to here.
    if burst * period > MAX_MICROSECONDS:
        raise ConfigError(f"{where}: burst {burst} x the period of {period / 1_000_000:g} s is too large; make either smaller")
    return Rule("rate", count, period, burst)


def _default_burst(count: int, period: int) -> int:
    per_second = Fraction(count * 1_000_000, max(period, 1))
    return max(1, round(per_second * _BURST_SECONDS)) if per_second > _STEADY_PER_SECOND else 1


def _whole(text: str, most: int, where: str) -> int:
    if not 1 <= (number := int(text[:20])) <= most:
        raise ConfigError(f"{where}: {text} is out of range, want 1 to {most}")
    return number
