"""What the gates of queues hold back, for who looks at a queue or at one message. Reads only, and not all of a long queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redisq.broker.commands import Command
from redisq.broker.groups import read_group
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.queues import Steps
from redisq.broker.replies import text
from redisq.errors import BrokerError

__all__ = ["HeldBack", "MessageGates", "gates_of", "held_back"]

#: So many paused gates of one queue are read.
_MOST = 100


class HeldBack(NamedTuple):
    """What holds a queue's messages back.

    Attributes:
        pauses: Gates, classes and lanes (`@42`) that are paused -> seconds to go; infinite: until resumed.
        blocked: Lanes, and sets of limits without a lane, that wait at some gate.
    """

    pauses: Mapping[str, float]
    blocked: int


class MessageGates(NamedTuple):
    """The lane and limits of one message.

    Attributes:
        lane: Its lane, without the `@`; None: it has none.
        place: Its place among those that wait in the lane, from 1; None: it does not wait there.
        holder: The message that was started in the lane and has not ended: it runs, waits for its next attempt, or is dead
            and holds the lane; None: there is none, or it is this one.
        limits: The gates that it is counted in.
        waits_at: The gate where its lane, or the first of those with the same limits, waits; None: it is not refused by one.
    """

    lane: str | None
    place: int | None
    holder: str | None
    limits: Sequence[str]
    waits_at: str | None


def held_back(queues: Sequence[QueueKeys]) -> Steps[dict[QueueKeys, HeldBack]]:
    """Read what is paused and how much waits; a queue that cannot be read is left out."""
    if not queues:
        return {}
    groups = yield tuple(read_group(keys) for keys in queues)
    commands: list[Command[Any]] = [Command("", None, ("TIME",), _microseconds)]
    for keys, group in zip(queues, groups, strict=True):
        shared = group if isinstance(group, GroupKeys) else keys
        commands += (
            Command("", keys, ("ZRANGE", shared.named("pauses"), -_MOST, -1, "WITHSCORES"), _scores),
            Command("", keys, ("HLEN", keys.named("blocked")), int),
        )
    now, *results = yield tuple(commands)
    found: dict[QueueKeys, HeldBack] = {}
    for keys, pauses, blocked in zip(queues, results[::2], results[1::2], strict=True):
        if not any(isinstance(result, BrokerError) for result in (now, pauses, blocked)):
            left = {name: (until - now) / 1_000_000 for name, until in pauses.items() if until > now}
            found[keys] = HeldBack(left, blocked)
    return found


def gates_of(keys: QueueKeys, id: str) -> Steps[MessageGates | None]:
    """Read the gates of one message; None: it has none, or is not there any more."""
    descriptor: str = yield Command("", keys, ("HGET", keys.named("needs"), id), _text)
    _, kind, flow, *needs = descriptor.split(" ") if descriptor.count(" ") > 1 else ("", "", "")
    if not flow:
        return None
    rank, holder, gate = yield (
        Command("", keys, ("ZRANK", keys.flow(flow), id), _rank),
        Command("", keys, ("HGET", keys.named("lanes"), flow), _text),
        Command("", keys, ("HGET", keys.named("blocked"), flow), _text),
    )
    for result in (rank, holder, gate):
        if isinstance(result, BrokerError):
            raise result
    limits = [need[1:].rpartition(",")[0] for need in needs]
    if kind == "F":
        return MessageGates(None, None, None, limits, gate or None)
    return MessageGates(flow.removeprefix("@"), rank, (holder or None) if holder != id else None, limits, gate or None)


def _text(reply: Any) -> str:
    return "" if reply is None else text(reply)


def _rank(reply: Any) -> int | None:
    return None if reply is None else int(reply) + 1


def _scores(reply: Any) -> dict[str, float]:
    # RESP3 answers with pairs, RESP2 with a flat list.
    flat = [value for pair in reply for value in pair] if reply and isinstance(reply[0], list) else reply
    return {_text(name): float(score) for name, score in zip(flat[::2], flat[1::2], strict=True)}


def _microseconds(reply: Any) -> int:
    return int(reply[0]) * 1_000_000 + int(reply[1])
