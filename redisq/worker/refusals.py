"""What becomes of a delivery whose handler a platform refused: its gate pauses for all, and it runs again. No attempt is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from redisq.app.spelling import closest
from redisq.app.task import Task
from redisq.broker.commands import Settlement, limited
from redisq.codec.msgpack import decode
from redisq.errors import ArgumentsError
from redisq.gates.blame import Blame
from redisq.gates.limit import Limit
from redisq.gates.limited import limited_by
from redisq.message import Delivery
from redisq.redact import error_text
from redisq.worker.frames import stack

__all__ = ["MAX_REFUSALS", "Refusal", "after_refusal", "in_its_place", "refusal_of"]

#: A message that no gate holds back waits alone, and is a dead letter when it was refused so often.
MAX_REFUSALS = 50

#: The message itself waits up to this share of the pause longer, and no more seconds than that: not all come back at once.
_SHARE, _MOST = 0.1, 1.0


class Refusal(NamedTuple):
    """What a `limited` settlement says.

    Attributes:
        gate: What pauses; empty: nothing but the message.
        seconds: For so long.
        delay: Seconds until the message itself runs again.
        text: The error.
    """

    gate: str
    seconds: float
    delay: float
    text: str


def after_refusal(
    task: Task[..., Any],
    delivery: Delivery,
    error: BaseException,
    blame: Blame,
    max_bytes: int,
    random: Callable[[], float],
    *,
    pausing: bool = True,
) -> Settlement | None:
    """Return how the delivery ends if a platform had enough; None: the handler failed for another reason.

    With `pausing=False` no gate is paused, only the message itself waits.
    """
    limit = limited_by(error)
    if limit is None:
        return None
    verdict = blame.judge(limit, _counted(task, delivery, max_bytes), task.name)
    if not pausing:
        verdict = replace(verdict, gate="")
    text = error_text(error, (limit.error,))
    if not verdict.gate and delivery.meta.parks >= MAX_REFUSALS:
        return Settlement("dead", delivery.id, delivery.fence, 0, "limited", text, stack(error))
    jitter = random() * min(verdict.seconds * _SHARE, _MOST)
    pause, more = max(1, round(verdict.seconds * 1_000_000)), round(jitter * 1_000_000)
    settlement = limited(delivery.id, delivery.fence, gate=verdict.gate, pause=pause, jitter=more, text=text)
    return settlement._replace(stack=stack(error))


def refusal_of(settlement: Settlement) -> Refusal:
    """Read a settlement that `after_refusal` made."""
    gate, jitter, text = str(settlement.text).split(" ", 2)
    return Refusal(gate, settlement.delay / 1_000_000, (settlement.delay + int(jitter)) / 1_000_000, text)


def in_its_place(gate: str, limits: Sequence[Limit]) -> str:
    """Say which limit a handler may have meant that named one which is not there, and which its task has."""
    if not limits:
        return "The task has no limits: give it limits=[...], or raise RateLimited without key="
    name, colon, instance = gate.partition(":")
    meant = next((limit for limit in limits if limit.name == closest(name, [each.name for each in limits])), None)
    hint = f"Did you mean {meant.name}{colon + instance if meant.instance else ''}? " if meant else ""
    return f"{hint}The task has {', '.join(limit.gate for limit in limits)}"


def _counted(task: Task[..., Any], delivery: Delivery, max_bytes: int) -> Any:
    """The limits that the call is counted in. The body was read before, so it can be read again."""
    if not task.gating or not task.gating.gates.limits:
        return ()
    message = decode(delivery.body, max_bytes)
    try:
        return task.gating.gates.counted(*task.shape.revive(message.args, message.kwargs or {}))
    except ArgumentsError:
        return ()  # who sent it by name has other names for its gates
