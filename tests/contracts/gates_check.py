"""What must be true of a queue's gates at every moment: every index is rebuilt from main, needs, leases and rules, and compared."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redisq.broker.keys import GATES, SHARED, QueueKeys
from tests.keyspace import everything

__all__ = ["Gates", "Need", "Needs", "check", "read", "refusals"]

FOREVER = float("inf")


class Need(NamedTuple):
    """One gate that a message needs: `R` a rate, `S` a slot."""

    kind: str
    gate: str
    cost: int

    @property
    def cls(self) -> str:
        return self.gate.partition(":")[0]


class Needs(NamedTuple):
    """A descriptor, read. `kind`: C, H or F."""

    head: int
    kind: str
    flow: str
    needs: tuple[Need, ...]

    @classmethod
    def of(cls, text: str) -> Needs:
        head, kind, flow, *needs = text.split(" ")
        parts = [re.fullmatch(r"([RS])([^ ,]+),(\d+)", need) for need in needs]
        return cls(int(head), kind, flow, tuple(Need(part[1], part[2], int(part[3])) for part in parts if part))


@dataclass
class Gates:
    """All keys of a queue that its gates are about."""

    gated: bool = False
    untold: str = ""
    queue_paused: bool = False
    main: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)  # id -> short name of its zset
    leases: dict[str, str] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    needs: dict[str, Needs] = field(default_factory=dict)
    run: dict[str, float] = field(default_factory=dict)
    lanes: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    opens: dict[str, float] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    tat: dict[str, float] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    flows: dict[str, dict[str, float]] = field(default_factory=dict)
    waiting: dict[str, dict[str, float]] = field(default_factory=dict)
    dedupe: dict[str, tuple[str, bool]] = field(default_factory=dict)  # key -> owner, whether it goes by itself

    def first(self, flow: str) -> str | None:
        """The message of a flow that is tried next; None when nothing of it may be tried."""
        holder = self.lanes.get(flow)
        if holder:
            return holder if holder in self.main else None
        members = self.flows.get(flow, {})
        return min(members, key=lambda ident: (members[ident], ident), default=None)

    def rule(self, gate: str) -> list[int]:
        """The numbers of the rule that holds for a gate."""
        cls = gate.partition(":")[0]
        text = self.limits.get(f"={gate}") or self.limits.get(f"={cls}") or self.limits.get(cls) or ""
        return [int(number) for number in text.split()]

    def paused_until(self, gate: str) -> float:
        return max(self.pauses.get(gate, 0), self.pauses.get(gate.partition(":")[0], 0))


def read(client: Any, keys: QueueKeys) -> Gates:
    """Read the keys of a queue, and of its group."""
    whole = {name.decode(): value for name, (_, value) in everything(client).items()}
    raw = {name.removeprefix(f"{keys.prefix}:"): value for name, value in whole.items() if name.startswith(f"{keys.prefix}:")}
    if group := raw.get("config", {}).get(b"group"):
        raw |= {name: whole[f"{group.decode()}:{name}"] for name in SHARED if f"{group.decode()}:{name}" in whole}

    def texts(name: str) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in raw.get(name, {}).items()}

    def scores(name: str) -> dict[str, float]:
        return {member.decode(): score for member, score in raw.get(name, [])}

    config = texts("config")
    suffix = {key.name: key.suffix for key in GATES}
    places = ("main", "delayed", "retry", "processing", "dlq")
    return Gates(
        gated="gated" in config,
        untold=config.get("gated", "1").removeprefix("1"),
        queue_paused=config.get("paused") == "1",
        main=scores("queue:main"),
        states={ident: place for place in places for ident in scores(f"queue:{place}")},
        leases=texts("leases"),
        meta=texts("meta"),
        needs={ident: Needs.of(text) for ident, text in texts(suffix["needs"]).items()},
        run=scores(suffix["run"]),
        lanes=texts(suffix["lanes"]),
        blocked=texts(suffix["blocked"]),
        opens=scores(suffix["gates"]),
        slots={gate: int(count) for gate, count in texts(suffix["slots"]).items()},
        tat=scores(suffix["tat"]),
        pauses=scores(suffix["pauses"]),
        limits=texts(suffix["limits"]),
        flows={name[5:]: scores(name) for name in raw if name.startswith("flow:")},
        waiting={name[8:]: scores(name) for name in raw if name.startswith("waiting:")},
        dedupe={
            name[7:]: (value.decode().split(" ")[0], client.ttl(f"{keys.prefix}:{name}") >= 0)
            for name, value in raw.items()
            if name.startswith("dedupe:")
        },
    )


def refusals(gates: Gates, flow: str, score: float, now: int) -> dict[str, float]:
    """The gates that refuse the first message of a flow, and when each opens; 0: with what somebody else does."""
    first = gates.first(flow)
    assert first
    needs = gates.needs[first]
    found: dict[str, float] = {}
    if needs.kind != "F" and gates.pauses.get(flow, 0) > now:
        found[flow] = gates.pauses[flow]
    for need in needs.needs:
        rule, until = gates.rule(need.gate), gates.paused_until(need.gate)
        if until > now:
            found[need.gate] = until
        if need.kind == "R" and need.cost and len(rule) == 3:
            count, period, burst = rule
            step = -(-need.cost * period // count)
            tolerance = max(burst * period // count, step)
            at = max(gates.tat.get(need.gate, 0), now) + step - tolerance
            if at > now:
                found[need.gate] = max(at, until)
        elif until <= now and need.kind == "S" and len(rule) == 1 and gates.slots.get(need.gate, 0) >= rule[0]:
            found[need.gate] = 0
        if need.gate not in found:
            others = {other: at for other, at in gates.waiting.get(need.gate, {}).items() if other != flow}
            if min(others.values(), default=FOREVER) < score and gates.blocked.get(flow) != need.gate:
                found[need.gate] = 0
    return found


def check(gates: Gates, now: int, *, served: bool = False, alone: bool = True) -> None:
    """Fail when an index is not what it has to be.

    `served`: a claim just now found no more than it could take. `alone`: no other queue has to do with its limits.
    """
    _check_dedupe(gates)
    if not gates.gated:
        for name in ("needs", "run", "lanes", "blocked", "opens", "slots", "flows", "waiting"):
            assert not getattr(gates, name), f"a queue without gates has {name}: {getattr(gates, name)}"
        return
    assert set(gates.needs) <= set(gates.states), "needs of a message that is gone"
    _check_lanes(gates)
    _check_slots(gates)
    _check_flows(gates)
    _check_tickets(gates)
    if alone:
        _check_openings(gates, now)
    if served:
        _check_nothing_left(gates, now)


def _check_dedupe(gates: Gates) -> None:
    for key, (owner, goes) in gates.dedupe.items():
        lives = gates.states.get(owner, "dlq") != "dlq"
        assert lives != goes, f"I21: dedupe key {key} of {owner}, which is {gates.states.get(owner)}: expires: {goes}"
        assert not lives or f"dedupe={key}" in gates.meta.get(owner, ""), f"I21: {owner} does not know its key {key}"


def _check_lanes(gates: Gates) -> None:
    for lane, holder in gates.lanes.items():
        needs = gates.needs.get(holder)
        assert needs, f"I15: lane {lane} is held by {holder}, which needs nothing"
        assert (needs.flow, needs.kind != "F") == (lane, True), f"I15: lane {lane} is held by {holder}, which needs {needs}"
        state = gates.states[holder]
        assert state in ("processing", "retry", "main") or (state == "dlq" and needs.kind == "H"), (
            f"I15: lane {lane} is held by {holder}, which is in {state}"
        )
    for ident, needs in gates.needs.items():
        started = gates.states[ident] in ("processing", "retry") or ident in gates.leases
        if needs.kind != "F" and started:
            assert gates.lanes.get(needs.flow) == ident, f"I15: {ident} was started, and does not hold its lane {needs.flow}"


def _check_slots(gates: Gates) -> None:
    used = Counter(
        need.gate
        for ident, needs in gates.needs.items()
        if gates.states[ident] == "processing"
        for need in needs.needs
        if need.kind == "S"
    )
    assert gates.slots == dict(used), "I22: slots that are not those of living leases"


def _check_flows(gates: Gates) -> None:
    flows: dict[str, dict[str, float]] = defaultdict(dict)
    for ident, needs in gates.needs.items():
        if ident in gates.main and gates.lanes.get(needs.flow) != ident:
            flows[needs.flow][ident] = gates.main[ident]
    assert gates.flows == dict(flows), "flows are not what waits in main"


def _check_tickets(gates: Gates) -> None:
    waiting = {(flow, gate) for gate, flows in gates.waiting.items() for flow in flows}
    assert waiting == set(gates.blocked.items()), "blocked is not waiting turned round"
    flows = {needs.flow for needs in gates.needs.values()}
    ready = {flow for flow in flows if gates.first(flow) is not None}
    tickets = {name[1:] for name in gates.run if name.startswith("~")}
    assert set(gates.blocked) <= ready, f"nothing is left of a flow that waits at a gate: {set(gates.blocked) - ready}"
    assert tickets == ready - set(gates.blocked), "a flow without its one ticket, or with one too many"
    plain = {ident: score for ident, score in gates.main.items() if ident not in gates.needs}
    told = {name: score for name, score in gates.run.items() if name[0] not in "~!"}
    assert told.items() <= plain.items(), "a ticket of a message that does not wait"
    if not gates.untold:
        assert told == plain, "a message without its ticket"


def _check_openings(gates: Gates, now: int) -> None:
    for gate, flows in gates.waiting.items():
        if f"!{gate}" in gates.run:
            continue
        flow = min(flows, key=lambda each: (flows[each], each))
        at = refusals(gates, flow, flows[flow], now).get(gate)
        if at and gate not in gates.opens:
            # It was full when it was paused: who gives a slot back has it looked at.
            assert gates.slots.get(gate, 0) > 0, f"nobody will open gate {gate}, which is paused"
        elif at is None or at > 0:
            assert gate in gates.opens, f"nobody will open gate {gate} for {flow}"
            assert gates.opens[gate] <= max(at or 0, now), f"gate {gate} opens {gates.opens[gate] - (at or now)} us late for {flow}"
        else:
            assert gates.slots.get(gate, 0) > 0, f"nobody will give back a slot of {gate}"


def _check_nothing_left(gates: Gates, now: int) -> None:
    assert not gates.run, f"a claim with room left {gates.run}"
    assert not gates.untold
    for flow, gate in gates.blocked.items():
        found = refusals(gates, flow, gates.waiting[gate][flow], now)
        assert found or min(gates.waiting[gate].values()) < gates.waiting[gate][flow], f"{flow} waits at {gate}, which is open"
