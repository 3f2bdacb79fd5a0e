"""Put back what a queue lost with a key that was deleted or evicted, in bounded calls: between two the server serves others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from redisq.broker.commands import Command, repair_page
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.queues import PAGE, Steps, layouts, page
from redisq.errors import BrokerError

__all__ = ["Losses", "look", "repair"]

#: The pages of a queue, in the order that each rests on those before it.
_FLOWS_AT_ONCE = 100
_FLOWS, _REST = ("run", "blocked", "lanes"), ("leases", "retry", "dead", "main", "delayed", "messages", "slots")


class Losses(NamedTuple):
    """What a queue has lost.

    Attributes:
        config: 1: its config, with its layout.
        waiting: Bodies in no state that belong in `main`. Due times of delayed messages are not known any more.
        processing: Bodies in no state under a lease: the holder extends it, or it ends.
        dead: Bodies in no state that are dead letters.
        needs: Messages whose lane and limits are not known any more. The name of their lane is, or those of their limits.
        tickets: Waiting messages that no claim would try.
        lanes: Lanes that a message holds which is gone, or that nobody holds though a message of theirs was started.
        gates: Limits at which something waits, and that no claim would look at again.
        slots: Limits whose count of running messages is wrong.
        bodiless: Messages without a body. A repair makes dead letters of them, and lets dead letters say that they have none.
        in_turn: Messages without a body in lanes that stop for a dead letter. A worker makes each one when it is its turn.
    """

    config: int = 0
    waiting: int = 0
    processing: int = 0
    dead: int = 0
    needs: int = 0
    tickets: int = 0
    lanes: int = 0
    gates: int = 0
    slots: int = 0
    bodiless: int = 0
    in_turn: int = 0

    @property
    def stateless(self) -> int:
        """How many bodies are in no state."""
        return self.waiting + self.processing + self.dead


def look(keys: QueueKeys, lease: int) -> Steps[Losses]:
    """Count what a queue has lost. Changes nothing."""
    return (yield from _walk(keys, lease, act=False))


def repair(keys: QueueKeys, lease: int) -> Steps[Losses]:
    """Put back what a queue has lost, and say what it was. Safe beside running workers, and safe to repeat.

    Args:
        keys: The queue.
        lease: Microseconds that a lease lasts from now whose deadline was lost, unless its holder extends it.
    """
    return (yield from _walk(keys, lease, act=True))


def _walk(keys: QueueKeys, lease: int, *, act: bool) -> Steps[Losses]:
    layout = (yield from layouts([keys]))[keys]
    group = "" if layout else (yield from _find_group(keys))

    def pages(what: str, flows: Sequence[str] = ()) -> Steps[Counter[str]]:
        found: Counter[str] = Counter()
        cursor = ""
        while cursor != "0":
            command = repair_page(keys, act=act, lease=lease, group=group, what=what, cursor=cursor or "0", flows=flows)
            (result,) = yield (command,)
            if isinstance(result, BrokerError):
                raise result
            cursor, counts = result
            found.update(counts)
        return found

    def flows_by_name() -> Steps[Counter[str]]:
        """Those of a queue whose `needs` was lost: the names of its other keys tell them."""
        found: Counter[str] = Counter()
        prefix = keys.flow("")
        cursor = -1
        while cursor != 0:
            cursor, names = yield Command("", None, ("SCAN", max(cursor, 0), "MATCH", f"{prefix}*", "COUNT", PAGE), page)
            for at in range(0, len(names), _FLOWS_AT_ONCE):
                found += yield from pages("flows", [name.removeprefix(prefix) for name in names[at : at + _FLOWS_AT_ONCE]])
        return found

    is_gated, are_known = yield (
        Command("", keys, ("HEXISTS", keys.named("config"), "gated"), int),
        Command("", keys, ("EXISTS", keys.named("needs")), int),
    )
    found: Counter[str] = Counter()
    for what in _FLOWS:
        found += yield from pages(what)
    if found["needs"] or ((is_gated or not layout) and not are_known):
        named = yield from flows_by_name()
        if not act:
            del found["needs"]  # they are counted again, all of them
        found += named
    for what in _REST:
        found += yield from pages(what)
    return Losses(**{**found, "config": min(found["config"], 1)})


def _find_group(keys: QueueKeys) -> Steps[str]:
    """The prefix of the group that a queue without config is in, if it is in one: the group's keys know its queues."""
    cursor = -1
    while cursor != 0:
        pattern = GroupKeys.pattern(keys.namespace)
        cursor, names = yield Command("", None, ("SCAN", max(cursor, 0), "MATCH", pattern, "COUNT", PAGE), page)
        scores: list[Any] = []
        if names:
            scores = yield tuple(Command("", None, ("ZSCORE", name, keys.prefix), _as_it_is) for name in names)
        for name, score in zip(names, scores, strict=True):
            if score is not None and not isinstance(score, BrokerError):
                group: str = name.removesuffix(":queues")
                return group
    return ""


def _as_it_is(reply: Any) -> Any:
    return reply
