"""Which gate a platform's "too many requests" shuts, and for how long when it does not say.

Named by the handler: that one. Else what the answer says was limited (`chat`, `bot`, `method`, `model`) is looked for among
the limits that the call is counted in: the limit of that name, then one whose instance has the word in it (`{chat_id}`,
`{model}`), then, for a chat, the narrowest one, and for all else the widest. When it says nothing: the narrowest.

Platforms say "chat" or nothing also when they mean the bot. When three instances of a limit are refused within a second, it
was not about the one: then the widest is shut. So a limit of one chat does not stop the bot, and one of the bot costs a
process three refusals and not one for each chat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redisq.clocks import monotonic
from redisq.gates.limit import Limit
from redisq.gates.limited import RateLimit, Scope
from redisq.gates.template import gate_name

__all__ = ["Blame", "Verdict"]

#: Seconds to wait when the platform does not say: doubles while it goes on.
FIRST, MOST = 1.0, 60.0
#: So many other instances refused within so many seconds show that it is not about the one.
_OTHERS, _TOGETHER = 2, 1.0
#: What is known of a gate is forgotten so many seconds after it opened; of the oldest when there are more than so many.
_REMEMBERED, _MOST_GATES = 60.0, 1_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to pause.

    Attributes:
        gate: A class, or one instance; empty: the task has no limit that this is about, only the message itself waits.
        seconds: For so long.
    """

    gate: str
    seconds: float


@dataclass(slots=True)
class _Shut:
    """A gate that was shut: when, since which refusal in a row, until when, for how long."""

    gate: str
    at: float
    row: int
    until: float
    seconds: float


class Blame:
    """Judges refusals, and remembers the last of them. One for each process; a gate's pause itself is in Redis.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._shut: dict[str, _Shut] = {}

    def judge(self, limit: RateLimit, counted: Sequence[tuple[Limit, str]], alone: str) -> Verdict:
        """Say which gate to pause.

        Args:
            limit: The refusal.
            counted: The limits of the task that its call is counted in, each with its gate.
            alone: What stands for the gate when there is none: the task's name.
        """
        now = self._now()
        gate = gate_name(limit.key) if limit.key else self._of_scope(limit.scope, counted, now)
        known = self._shut.get(gate or f"={alone}")
        seconds = limit.seconds
        row = 1
        if known and now < known.until:  # refused with the others that were on their way then
            row = known.row
            seconds = known.until - now if seconds is None else seconds
        elif known and now < known.until + known.seconds + 1:
            row = known.row + 1
        if seconds is None:
            seconds = min(FIRST * 2.0 ** min(row - 1, 10), MOST)
        self._remember(gate or f"={alone}", _Shut(gate, now, row, max(now + seconds, known.until if known else 0.0), seconds), now)
        return Verdict(gate, seconds)

    def _of_scope(self, scope: Scope | None, counted: Sequence[tuple[Limit, str]], now: float) -> str:
        narrow = [gate for limit, gate in counted if limit.instance]
        wide = [gate for limit, gate in counted if not limit.instance]
        named = [gate for limit, gate in counted if limit.name == scope]
        about = [gate for limit, gate in counted if scope and scope in limit.instance]
        if scope in (None, "chat"):
            found = named or about or narrow[-1:] or ([] if scope else wide)
            if found and wide and self._others(found[0], now) >= _OTHERS:
                found = wide
        else:
            found = named or about or wide
        return found[0] if found else ""

    def _others(self, gate: str, now: float) -> int:
        """How many other instances of the same limit were refused a moment ago."""
        same = f"{gate.partition(':')[0]}:"
        return sum(shut.gate != gate and shut.gate.startswith(same) and now - shut.at <= _TOGETHER for shut in self._shut.values())

    def _remember(self, name: str, shut: _Shut, now: float) -> None:
        self._shut.pop(name, None)
        self._shut[name] = shut
        while self._shut:
            oldest = next(iter(self._shut))
            if len(self._shut) <= _MOST_GATES and now < self._shut[oldest].until + _REMEMBERED:
                return
            del self._shut[oldest]
