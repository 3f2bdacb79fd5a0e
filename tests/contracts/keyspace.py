"""All keys of one queue as plain values, and what must be true of them at every moment and across every call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from redisq.broker.commands import SUSPECT, Settlement
from redisq.broker.keys import FIXED, GroupKeys, QueueKeys
from redisq.message import parse_meta
from redisq.states import State
from tests.clock import clock_key

#: Where each state's messages are.
ZSETS = {
    State.WAITING: "main",
    State.DELAYED: "delayed",
    State.RETRY: "retry",
    State.PROCESSING: "processing",
    State.DEAD: "dlq",
}
#: The counters of those that left (I4).
WAYS_OUT = ("processed_requests", "expired", "cancelled", "dropped", "purged")
LEDGER_TTL_MS = 600_000
#: Ends the record of a lease whose message is not wanted any more.
CANCELLED = " cancel"


@dataclass(frozen=True)
class Snapshot:
    """The digest of a queue. `states`: state -> id -> score; hashes as text, but bodies as bytes."""

    states: dict[State, dict[str, int]] = field(default_factory=lambda: {state: {} for state in ZSETS})
    bodies: dict[str, bytes] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    clock: int = 0
    stats: dict[str, int] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    wake: bool = False
    calls: dict[str, str] = field(default_factory=dict)

    def ids(self) -> set[str]:
        return {ident for scores in self.states.values() for ident in scores}

    def of(self, ident: str) -> tuple[Any, ...]:
        """Everything that the queue holds of one message."""
        places = {state: scores[ident] for state, scores in self.states.items() if ident in scores}
        return places, self.bodies.get(ident), self.leases.get(ident), self.meta.get(ident)

    def without(self, *counters: str) -> Snapshot:
        """What a refused call may not change: all but the clock, the grace and the call's own answer."""
        config = {name: value for name, value in self.config.items() if name not in ("layout", "grace_until", "seen")}
        stats = {name: value for name, value in self.stats.items() if name not in counters}
        return replace(self, clock=0, calls={}, config=config, stats=stats)


def is_cancelled(lease: str | None) -> bool:
    return bool(lease) and lease.endswith(CANCELLED)


def _head(lease: str | None) -> str:
    """Fence, place and holder."""
    return " ".join((lease or "").split()[:3])


def _texts(raw: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in raw.items()}


def _score(score: float) -> int:
    assert score.is_integer(), f"I18: score {score!r} is not a whole number"
    assert abs(score) < 2**53, f"I18: score {score!r} is not exact"
    return int(score)


def read(client: Any, keys: QueueKeys) -> Snapshot:
    """Read every key of the database, which holds this queue alone. Checks the keys themselves (I25)."""
    names = {name.decode() for name in client.scan_iter(count=1000)}
    calls = sorted(name for name in names if name.startswith(f"{keys.prefix}:call:"))
    permanent = {f"{keys.prefix}:{key.suffix}" for key in FIXED if key.name != "never"} | {clock_key(keys.prefix)}
    permanent |= {keys.named("limits"), keys.named("pauses")}  # an operator may set them where there are no gates
    permanent.add(GroupKeys("g").named("queues"))
    strange = names - permanent - set(calls)
    assert not strange, f"I25: keys that are not on the list: {strange}"
    pipe = client.pipeline(transaction=False)
    for name in (*ZSETS.values(), "wake"):
        pipe.zrange(keys.named(name), 0, -1, withscores=True)
    for name in ("messages", "leases", "meta", "stats", "config"):
        pipe.hgetall(keys.named(name))
    pipe.get(keys.named("clock"))
    for name in calls:
        pipe.get(name)
        pipe.pttl(name)
    *found, clock = (replies := pipe.execute())[:12]
    ledger = replies[12:]
    for name, ttl in zip(calls, ledger[1::2], strict=True):
        assert 0 < ttl <= LEDGER_TTL_MS, f"I25: {name} lives for {ttl} ms"
    wake = found[5]
    assert wake in ([], [(b"1", 0.0)]), f"the wake key holds {wake}"
    start = len(f"{keys.prefix}:call:")
    return Snapshot(
        states={state: {ident.decode(): _score(score) for ident, score in rows} for state, rows in zip(ZSETS, found, strict=False)},
        bodies={ident.decode(): body for ident, body in found[6].items()},
        leases=_texts(found[7]),
        meta=_texts(found[8]),
        clock=int(clock or 0),
        stats={name: int(value) for name, value in _texts(found[9]).items()},
        config=_texts(found[10]),
        wake=bool(wake),
        calls={name[start:]: text.decode() for name, text in zip(calls, ledger[::2], strict=True)},
    )


def check(snapshot: Snapshot, bodiless: Iterable[str] = ()) -> None:
    """What is true of a queue between any two commands. `bodiless`: ids whose body a third party deleted."""
    states, leases, stats = snapshot.states, snapshot.leases, snapshot.stats
    ids = snapshot.ids()
    assert len(ids) == sum(map(len, states.values())), "I1: an id is in two states"
    assert set(snapshot.bodies) == ids - set(bodiless), "I2: an id without a body, or a body without an id"
    accepted, left = stats.get("total_messages", 0), sum(stats.get(name, 0) for name in WAYS_OUT)
    assert accepted == len(ids) + left, f"I3: {accepted} accepted, {len(ids)} there, {left} left"
    held = {ident for ident, lease in leases.items() if not lease.startswith("x")}
    assert held == set(states[State.PROCESSING]), "I9: the living leases are not those of the messages in processing"
    assert set(leases) - held <= set(states[State.WAITING]) | set(states[State.RETRY]), (
        "a lease that was taken back outlives its message's wait"
    )
    assert set(snapshot.meta) <= ids, "meta of a message that is gone"
    assert all(snapshot.meta.values()), "an empty meta record"
    assert set(states[State.DEAD]) <= set(snapshot.meta), "a dead letter without a reason"
    fences = [int(lease.lstrip("x").split()[0]) for lease in leases.values()]
    assert max(fences, default=0) <= snapshot.clock, "I7: a fence that the clock has not reached"


def check_step(before: Snapshot, after: Snapshot, now: int) -> None:
    """What is true across any call at time `now`."""
    for name, value in before.stats.items():
        assert after.stats.get(name, 0) >= value, f"I27: counter {name} fell"
    assert after.clock >= before.clock, "the clock fell"
    gone, new = before.ids() - after.ids(), after.ids() - before.ids()
    left = sum(after.stats.get(name, 0) - before.stats.get(name, 0) for name in ("processed_requests", "cancelled", "dropped"))
    accepted = after.stats.get("total_messages", 0) - before.stats.get("total_messages", 0)
    assert len(new) - len(gone) == accepted - left, f"I4, I5: {new} came, {accepted} counted; {gone} left, {left} counted"
    # A message may come and be the one too many in the same call, and never be seen.
    assert len(gone) <= left, f"I4: {gone} left, {left} counted as done, cancelled or dropped"
    for ident, lease in after.leases.items():
        earlier = before.leases.get(ident)
        assert not is_cancelled(earlier) or earlier == lease, f"{ident} was cancelled, and it lives on"
        if _head(earlier) == _head(lease) and ident in after.states[State.PROCESSING]:
            moved = after.states[State.PROCESSING][ident] - before.states[State.PROCESSING][ident]
            assert moved >= 0, f"I9: the deadline of {ident} went back by {-moved} us"
        elif not lease.startswith("x"):
            fence = int(lease.split()[0])
            assert fence > before.clock, f"I7: fence {fence} of {ident} is not greater than all before it"
            assert fence >= now, f"I7: fence {fence} is older than its delivery"
    for state in (State.DELAYED, State.RETRY):
        # One that was put aside may also leave by a late ack of its last holder.
        for ident in (set(before.states[state]) - set(after.states[state])) & after.ids():
            assert before.states[state][ident] <= now, f"I19: {ident} came {before.states[state][ident] - now} us early"


def check_claim(before: Snapshot, after: Snapshot, now: int, limit: int, max_crashes: int, grace: int, runs_apart: bool) -> None:
    """What is true across a claim. `grace`: nothing may be taken back before, as promised after a gap of the server."""
    leased = sorted(
        (int(lease.split()[1]), ident)
        for ident, lease in after.leases.items()
        if not lease.startswith("x") and lease != before.leases.get(ident)
    )
    assert len(leased) <= limit, f"I14: {len(leased)} leased, at most {limit} asked for"
    waiting = sorted((score, ident) for ident, score in after.states[State.WAITING].items())
    assert not leased or not waiting or leased[-1] < waiting[0], "I16: a message was passed over"
    came = leased + waiting
    for score, ident in came:
        assert score == before.states[State.WAITING].get(ident, score), f"I16: {ident} changed its place"
    for ident, deadline in before.states[State.PROCESSING].items():
        if after.leases.get(ident) == before.leases[ident]:
            continue
        if is_cancelled(before.leases[ident]):
            assert ident not in after.ids(), f"{ident} was cancelled, and it lives on"
            continue
        assert deadline <= now, f"I10: {ident} was taken from its holder {deadline - now} us early"
        assert grace <= now, f"I12: {ident} was taken back {grace - now} us before the grace ended"
        crashes = parse_meta(before.meta.get(ident, "").encode()).crashes + 1
        meta = parse_meta(after.meta[ident].encode())
        assert meta.crashes == crashes, f"I13: {ident} was not charged"
        most = 2 * max_crashes if runs_apart and crashes > SUSPECT else max_crashes
        assert (crashes >= most) == (meta.reason == "crashed"), f"I13: {ident} crashed {crashes} of {most} times"
        place = int(before.leases[ident].split()[1])
        if ident not in after.states[State.DEAD]:
            assert (place, ident) in came, f"I16: {ident} lost its place"


def check_enqueue(before: Snapshot, after: Snapshot, ids: list[str], duplicates: list[str]) -> None:
    """What is true across an enqueue of `ids` that named `duplicates` in its answer."""
    dropped = after.stats.get("dropped", 0) - before.stats.get("dropped", 0)
    wanted = before.ids() | set(ids)
    assert after.ids() <= wanted, "I6: others came"
    assert len(wanted - after.ids()) == dropped, "I6: not all of them were accepted"
    assert len(duplicates) == len(ids) - len(set(ids) - before.ids()), "I5, I6: not each duplicate was named"
    for ident in before.ids() & after.ids():
        assert before.of(ident) == after.of(ident), f"I5: {ident} was there already, and was changed"


def check_settle(before: Snapshot, after: Snapshot, settlements: list[Settlement], stale: list[str]) -> None:
    """What is true across a settle that named `stale` in its answer."""
    valid = set()
    for settlement in settlements:
        lease = before.leases.get(settlement.id, "")
        if lease.startswith(f"{settlement.fence} ") or (settlement.op == "ack" and lease.startswith(f"x{settlement.fence} ")):
            valid.add(settlement.id)
    assert len(stale) == len(settlements) - len(valid), "I8, I8b: stale is what has not the last fence, or comes second"
    for ident in before.ids() - valid:
        assert before.of(ident) == after.of(ident), f"I8: {ident} was changed without its fence"
    assert not valid & set(after.leases), "I8: a fence that was used up stays good"
    if not valid:
        assert before.without("stale", "run_time_us") == after.without("stale", "run_time_us"), (
            "I8: a refused settle changed something"
        )


def check_restore(before: Snapshot, after: Snapshot, leases: list[tuple[str, int]], stale: list[str]) -> None:
    """What is true across a restore of `leases` that named `stale` in its answer."""
    valid = {ident for ident, fence in leases if before.leases.get(ident, "").startswith(f"{fence} ")}
    assert len(stale) == len(leases) - len(valid), "I8: stale is what has not the last fence, or comes second"
    for ident in before.ids() - valid:
        assert before.of(ident) == after.of(ident), f"I8: {ident} was given back without its fence"
    for ident in valid & after.ids() - set(after.states[State.DEAD]):
        assert after.states[State.WAITING][ident] == int(before.leases[ident].split()[1]), f"I16: {ident} lost its place"
        assert after.leases[ident] == f"x{before.leases[ident]}", f"I8b: a late ack of {ident} would not count"


def check_extend(before: Snapshot, after: Snapshot, leases: list[tuple[str, int]], until: int) -> None:
    """What is true across an extend of `leases` to at least `until`."""
    held = {ident for ident, fence in leases if before.leases.get(ident, "").startswith(f"{fence} ")}
    for ident in before.ids() - held:
        assert before.of(ident) == after.of(ident), f"I8: {ident} was extended without its fence"
    for ident in held:
        assert after.states[State.PROCESSING][ident] >= until, f"I9: {ident} was not extended"
    if not held:
        assert before.without() == after.without(), "I8: a refused extend changed something"


def moved_back(before: Snapshot, after: Snapshot, now: int) -> Snapshot:
    """What was there before, as a step back of the server's clock moved it: what was left of each time is left."""
    back = int(before.config.get("seen", str(before.clock)).split()[0]) - now
    moves = (State.PROCESSING, State.RETRY)
    states = {
        state: {ident: at - back if state in moves and at > now else at for ident, at in times.items()}
        for state, times in before.states.items()
    }
    config = {name: value for name, value in before.config.items() if name not in ("seen", "grace_until")}
    config |= {name: after.config[name] for name in ("seen", "grace_until") if name in after.config}
    return replace(before, states=states, config=config, stats=before.stats | {"clock_set_back": after.stats["clock_set_back"]})


def events(snapshot: Snapshot) -> list[int]:
    """When messages are due and leases end, us."""
    grace = int(snapshot.config.get("grace_until", 0))
    times = [*snapshot.states[State.DELAYED].values(), *snapshot.states[State.RETRY].values()]
    return times + [max(grace, deadline) for deadline in snapshot.states[State.PROCESSING].values()]


def leasable(snapshot: Snapshot) -> bool:
    """Whether a claim would lease something at once."""
    return bool(snapshot.states[State.WAITING]) and snapshot.config.get("paused") != "1"
