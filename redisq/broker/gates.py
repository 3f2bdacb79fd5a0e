"""Pause, resume and set limits, and read how they stand: in bounded calls; between two of them the server serves others.

A class may have a gate for each chat. What an operator says of a class holds for all of them at once, for whoever is
tried; who waits already has to be told, page by page. When that is cut short, say it again: each of these may be repeated.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from redisq.broker import commands
from redisq.broker.commands import MAX_BATCH, Command
from redisq.broker.groups import sharing, where_limits_are
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.queues import Steps
from redisq.broker.replies import number, text
from redisq.errors import BrokerError

__all__ = ["GateView", "clear_limit", "define_limits", "pause", "read_limits", "resume", "set_limit"]

#: Fields that one page of a scan asks for.
_PAGE = 500


class GateView(NamedTuple):
    """One class, one gate, or one paused lane, at one moment.

    Attributes:
        name: `bot`, `chat:42`, `@42`.
        definition: The rule that holds for it, as stored (`redisq.gates.limit.show_definition`); empty: it can only be paused.
        by_operator: The rule is an operator's, not the code's.
        in_use: Slots that running messages hold, in all queues that share it.
        free: What it lets through now, pauses aside: tokens or slots; None: any number, or it is a class of many gates.
        opens_in: Seconds until the first who waits there may pass; None: nobody waits, or it opens with a slot or by hand.
        flows: Lanes, and sets of limits without a lane, that wait there; for a class without instances and for a gate.
        messages: Messages in these flows.
        paused_for: Seconds; infinite: until somebody resumes it; 0: it is not paused.
        group: The group of queues that share it; None: it is the queue's alone.
    """

    name: str
    definition: str = ""
    by_operator: bool = False
    in_use: int = 0
    free: int | None = None
    opens_in: float | None = None
    flows: int = 0
    messages: int = 0
    paused_for: float = 0.0
    group: str | None = None


def pause(keys: QueueKeys, gate: str, microseconds: int | None) -> Steps[None]:
    """Let nothing pass a class (`bot`), a gate (`chat:42`) or a lane (`@42`) for so long; None: until it is resumed.

    What runs goes on.
    """
    shared = yield from where_limits_are(keys)
    was_paused: float = yield Command("", keys, ("ZSCORE", shared.named("pauses"), gate), _score)
    yield commands.pause_gate(keys, gate, microseconds)
    if was_paused and _is_class(gate):
        yield from _kick_waiting(keys, gate, shared)  # it may open sooner than they were told


def resume(keys: QueueKeys, gate: str) -> Steps[None]:
    """Let messages pass again."""
    yield commands.pause_gate(keys, gate, 0)
    if _is_class(gate):
        yield from _kick_waiting(keys, gate, (yield from where_limits_are(keys)))


def set_limit(keys: QueueKeys, name: str, definition: str) -> Steps[None]:
    """Set the rule of a class (`chat`) or of one gate (`chat:42`), over that in the code, until it is cleared.

    It holds at once, for what waits too; an instance's goes before its class's. `definition`: see `redisq.gates.limit.Rule`.
    """
    yield commands.set_limit(keys, name, definition)
    if _is_class(name):
        yield from _kick_all(keys, name)


def define_limits(keys: QueueKeys, definitions: Mapping[str, str], group: str | None = None) -> Steps[None]:
    """Make the code's group and rules those of the code that runs: of each class that has another one now.

    Operators' rules go before them. Code without any limit says nothing about a queue's group.
    """
    if not definitions and group is None:
        return
    yield commands.join(keys, GroupKeys(group, keys.namespace) if group else None)
    if not definitions:
        return
    shared = yield from where_limits_are(keys)
    found: list[str | None] = yield Command("", keys, ("HMGET", shared.named("limits"), *definitions), _texts_or_none)
    for (name, definition), known in zip(definitions.items(), found, strict=True):
        if known == definition:
            continue
        yield commands.set_limit(keys, name, definition, "code")
        if known is not None:
            yield from _kick_all(keys, name)


def clear_limit(keys: QueueKeys, name: str) -> Steps[None]:
    """Let the rule in the code, or that of its class, hold again."""
    yield from set_limit(keys, name, "")


def read_limits(keys: QueueKeys) -> Steps[list[GateView]]:
    """Return how each class stands, and each gate and lane that is paused, waited at, in use or has a rule of its own, by name."""
    shared = yield from where_limits_are(keys)
    queues = yield from sharing(keys, shared)
    read: list[Any] = yield (
        Command("", keys, ("TIME",), _microseconds),
        Command("", keys, ("HGETALL", shared.named("limits")), _texts),
        Command("", keys, ("ZRANGE", shared.named("pauses"), 0, -1, "WITHSCORES"), _scores),
        Command("", keys, ("ZRANGE", keys.named("gates"), 0, _PAGE - 1, "WITHSCORES"), _scores),
        *(Command("", keys, ("HGETALL", each.named("slots")), _numbers) for each in queues),
    )
    now, definitions, pauses, opens, *held = _sound(read)
    slots = dict(sum((Counter(each) for each in held), Counter()))
    flows, messages = yield from _waiting(keys)
    names = {name.removeprefix("=") for name in definitions if name != "=*"} | set(slots) | set(flows)
    names |= {name for name, until in pauses.items() if until > now}
    rates = sorted(names)
    full_at: dict[str, float] = {}
    for at in range(0, len(rates), _PAGE):
        page = rates[at : at + _PAGE]
        found = yield tuple(Command("", keys, ("ZSCORE", shared.named("tat"), name), _score) for name in page)
        full_at |= dict(zip(page, _sound(found), strict=True))
    views = []
    for name in sorted(names):
        definition, by_operator = _rule_of(name, definitions)
        until = max(pauses.get(name, 0.0), pauses.get(name.partition(":")[0], 0.0))
        views.append(
            GateView(
                name,
                definition,
                by_operator,
                slots.get(name, 0),
                _free(definition, slots.get(name, 0), full_at[name] - now),
                max(opens[name] - now, 0.0) / 1_000_000 if name in opens else None,
                flows.get(name, 0),
                messages.get(name, 0),
                max(until - now, 0.0) / 1_000_000,
                shared.group if isinstance(shared, GroupKeys) else None,
            )
        )
    return views


def _waiting(keys: QueueKeys) -> Steps[tuple[dict[str, int], dict[str, int]]]:
    """Count the flows and the messages that wait at each gate."""
    gate_of: dict[str, str] = {}
    cursor = 0
    while True:
        cursor, page = yield Command("", keys, ("HSCAN", keys.named("blocked"), cursor, "COUNT", _PAGE), _page)
        gate_of |= page
        if cursor == 0:
            break
    flows: dict[str, int] = defaultdict(int)
    messages: dict[str, int] = defaultdict(int)
    names = list(gate_of)
    for at in range(0, len(names), _PAGE):
        page = names[at : at + _PAGE]
        found = yield tuple(Command("", keys, ("ZCARD", keys.flow(flow)), int) for flow in page)
        for flow, count in zip(page, _sound(found), strict=True):
            flows[gate_of[flow]] += 1
            messages[gate_of[flow]] += count
    return flows, messages


def _kick_all(keys: QueueKeys, name: str) -> Steps[None]:
    """Tell all whom a new rule of a class concerns."""
    shared = yield from where_limits_are(keys)
    yield from _kick_waiting(keys, name, shared)
    yield from _kick_indebted(keys, name, shared)


def _kick_waiting(keys: QueueKeys, name: str, shared: QueueKeys | GroupKeys) -> Steps[None]:
    """Tell who waits at the gates of a class."""
    for each in (yield from sharing(keys, shared)):
        cursor = 0
        while True:
            cursor, page = yield Command("", each, ("HSCAN", each.named("blocked"), cursor, "COUNT", _PAGE), _page)
            yield from _kick(each, name, page.values())
            if cursor == 0:
                break


def _kick_indebted(keys: QueueKeys, name: str, shared: QueueKeys | GroupKeys) -> Steps[None]:
    """Make what the gates of a class have given out count by the present rule."""
    cursor = 0
    while True:
        cursor, page = yield Command("", keys, ("ZSCAN", shared.named("tat"), cursor, "MATCH", f"{name}:*", "COUNT", _PAGE), _page)
        yield from _kick(keys, name, page)
        if cursor == 0:
            return


def _kick(keys: QueueKeys, name: str, gates: Iterable[str]) -> Steps[None]:
    found = [gate for gate in dict.fromkeys(gates) if gate.startswith(f"{name}:")]
    for at in range(0, len(found), MAX_BATCH):
        yield commands.kick(keys, found[at : at + MAX_BATCH])


def _is_class(name: str) -> bool:
    return not name.startswith("@") and ":" not in name


def _rule_of(name: str, definitions: dict[str, str]) -> tuple[str, bool]:
    """The rule that holds for a gate or class, and whether it is an operator's. As `limit_of` in `lua/include/gates.lua`."""
    cls = name.partition(":")[0]
    for field in (f"={name}", f"={cls}"):
        if field in definitions:
            return definitions[field], True
    return definitions.get(cls, ""), False


def _free(definition: str, in_use: int, debt: float) -> int | None:
    numbers = [int(word) for word in definition.split() if word.isdecimal()]
    if len(numbers) == 1:
        return max(numbers[0] - in_use, 0)
    if len(numbers) != 3 or not all(numbers):
        return None
    count, period, burst = numbers
    return max(math.floor((burst * period // count - max(debt, 0.0)) * count / period), 0)


def _sound(results: Iterable[Any]) -> list[Any]:
    """The results of several commands, of which none may be missing."""
    found = list(results)
    for result in found:
        if isinstance(result, BrokerError):
            raise result
    return found


def _texts(reply: Any) -> dict[str, str]:
    texts = [text(value) for value in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _texts_or_none(reply: Any) -> list[str | None]:
    return [None if value is None else text(value) for value in reply]


def _numbers(reply: Any) -> dict[str, int]:
    numbers = {name: number(value) for name, value in _texts(reply).items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _scores(reply: Any) -> dict[str, float]:
    # RESP3 answers with pairs, RESP2 with a flat list.
    flat = [value for pair in reply for value in pair] if reply and isinstance(reply[0], list) else reply
    return {name: float(value) for name, value in _texts(flat).items()}


def _score(reply: Any) -> float:
    return 0.0 if reply is None else float(reply)


def _page(reply: Any) -> tuple[int, dict[str, str]]:
    return int(reply[0]), _texts(reply[1])


def _microseconds(reply: Any) -> int:
    return int(reply[0]) * 1_000_000 + int(reply[1])
