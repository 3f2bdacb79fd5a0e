"""A plain model of the broker: what the scripts promise, on dicts, without Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from redisq.broker.commands import (
    MAX_BATCH,
    SUSPECT,
    Claimed,
    ClockSetBack,
    Enqueue,
    Enqueued,
    Found,
    QueueView,
    Restored,
    Settlement,
)
from redisq.message import STACK_MARK, Delivery, Meta
from redisq.states import State
from redisq.words import counted
from tests.clock import START
from tests.contracts.keyspace import ZSETS, Snapshot

#: Promotions and take-backs of one claim, each.
SWEEP = 100

#: A clock that is so many us behind the last time that a queue saw was set back.
SET_BACK = 1_000_000

#: What finds no room to run apart is tried again after so many us, each a little later than the one before it.
TURN, STEP = 500_000, 10_000


@dataclass
class Lease:
    fence: int
    place: int
    worker: str
    taken_back: bool = False
    cancelled: bool = False

    def record(self) -> str:
        return f"{'x' * self.taken_back}{self.fence} {self.place} {self.worker}{' cancel' * self.cancelled}"


@dataclass
class Entry:
    """One message. `score`: in its state's set; `place`: in main, when it is kept apart from that."""

    id: str
    body: bytes | None
    state: State
    score: int
    place: int | None = None
    attempt: int = 1
    crashes: int = 0
    parks: int = 0
    requeues: int = 0
    since: int | None = None
    reason: str = ""
    text: str | None = None
    lease: Lease | None = None

    def record(self) -> str:
        """The meta record; empty for a plain first delivery."""
        parts = [f"attempt={self.attempt}"] if self.attempt > 1 else []
        parts += [f"{name}={value}" for name, value in (("crashes", self.crashes), ("parks", self.parks)) if value]
        parts += [f"score={self.place}"] if self.place is not None else []
        parts += [f"requeues={self.requeues} since={self.since}"] if self.requeues else []
        parts += [f"died={self.score}"] if self.state is State.DEAD else []
        parts += [f"reason={self.reason}"] if self.reason else []
        parts += [f"text={self.text}"] if self.text is not None else []
        return " ".join(parts)

    def meta(self) -> Meta:
        text, _, stack = (self.text or "").partition(STACK_MARK)
        return Meta(self.attempt, self.crashes, self.parks, self.reason, text, requeues=self.requeues, stack=stack)

    def die(self, now: int, reason: str, text: str) -> None:
        self.state, self.score, self.reason, self.text, self.lease = State.DEAD, now, reason, text, None


@dataclass
class Model:
    """One queue. `now` is moved by the test."""

    prefix: str
    now: int = START
    entries: dict[str, Entry] = field(default_factory=dict)
    ledger: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    stats: Counter[str] = field(default_factory=Counter)
    clock: int = 0
    layout: bool = False
    paused: str | None = None
    lease: int = 0
    grace: int = 0
    wake: bool = False
    rules: str | None = None
    max_length: int = 0
    #: The last time that was seen while the clock is ahead of the time; how far it was set back, and how many times were moved.
    seen: int | None = None
    unsaid: tuple[int, int] | None = None

    def among(self, state: State) -> list[Entry]:
        """The messages of a state, in order."""
        return sorted((entry for entry in self.entries.values() if entry.state is state), key=lambda entry: (entry.score, entry.id))

    def current(self) -> list[tuple[str, int]]:
        """(id, fence) of every message whose last holder may still say something."""
        return [(entry.id, entry.lease.fence) for entry in self.entries.values() if entry.lease]

    def _recall(self, caller: str, number: int) -> list[str] | None:
        last, answer = self.ledger.get(caller, (-1, []))
        assert number >= last, "the caller has made a later call"
        return answer if last == number else None

    def _last(self) -> int:
        return self.clock if self.seen is None else self.seen

    def _back(self) -> int:
        back = self._last() - self.now
        return back if back > SET_BACK else 0

    def _grace(self) -> int:
        gap = self.lease and self._last() and self.now - self._last() > self.lease / 2
        return max(self.grace, self.now + self.lease) if gap else self.grace

    def _open(self, *, follows: bool = False) -> None:
        self.grace, self.layout = self._grace(), True
        if follows and (back := self._back()):
            self._follow(back)

    def _follow(self, back: int) -> None:
        """The server's clock was set back: what is counted from the time of a call moves back by as much."""
        moved = [entry for state in (State.PROCESSING, State.RETRY) for entry in self.among(state) if entry.score > self.now]
        for entry in moved:
            entry.score -= back
        if self.grace > self.now:
            self.grace -= back
        self.stats["clock_set_back"] += 1
        self.unsaid, self.seen = (back, len(moved)), self.now

    def _ticks(self, count: int) -> int:
        first = max(self.now, self.clock + 1)
        self.clock = first + count - 1
        return first

    def _close(self) -> None:
        back = self._back()
        self.clock = max(self.clock, self.now)
        if self.clock - self.now <= SET_BACK:
            self.seen = self.unsaid = None
        elif not back:
            self.seen = self.now

    def enqueue(self, caller: str, number: int, messages: Sequence[Enqueue]) -> Enqueued:
        answer = self._recall(caller, number)
        if answer is not None:
            return Enqueued(answer, {}, [])
        self._open()
        first = self._ticks(len(messages))
        known = min((entry.score for entry in self.among(State.DELAYED)), default=None)
        duplicates = []
        for i, message in enumerate(messages):
            if message.id in self.entries:
                duplicates.append(message.id)
                continue
            due = int(message.due) + (self.now if message.due.startswith("+") else 0)
            if due > self.now:
                due += i
                place = due - message.head_start if message.head_start else None
                self.entries[message.id] = Entry(message.id, message.body, State.DELAYED, due, place)
                self.wake |= known is None or due < known
            else:
                self.entries[message.id] = Entry(message.id, message.body, State.WAITING, first + i - message.head_start)
                self.wake = True
            self.stats["total_messages"] += 1
        if self.max_length:
            for entry in self.among(State.WAITING)[: -self.max_length]:
                self.stats["dropped"] += 1
                del self.entries[entry.id]
        self._close()
        self.ledger[caller] = number, duplicates
        return Enqueued(duplicates, {}, [])

    def declare(self, max_length: int) -> int:
        self._open()
        self.max_length = max_length
        self.rules = f"ttl=0 message_ttl=0 max_length={max_length} keep_expired=0" if max_length else None
        self._close()
        return len(self.among(State.WAITING)) + len(self.among(State.RETRY))

    def claim(
        self, caller: str, number: int, *, worker: str, limit: int, lease: int, max_crashes: int, apart: int | None = None
    ) -> Claimed:
        suspect = SUSPECT if apart is not None else 1_000_000
        apart = MAX_BATCH if apart is None else apart
        answer = self._recall(caller, number)
        if answer is not None:
            fence = int(answer[0])
            cut = answer.index(" ") if " " in answer else len(answer)
            held = [self.entries[ident] for ident in answer[1:cut] if ident in self.entries]
            held = [entry for entry in held if entry.lease and entry.lease.fence == fence and not entry.lease.taken_back]
            dead = [self.entries[ident] for ident in answer[cut + 1 :] if ident in self.entries]
            dead = [entry for entry in dead if entry.state is State.DEAD]
            return self._claimed(fence, held, self._next_due(self._grace()), dead)
        self._open(follows=True)
        dead: list[Entry] = []
        self.lease = lease
        for state in (State.DELAYED, State.RETRY):
            for entry in self.among(state)[:SWEEP]:
                if entry.score <= self.now:
                    entry.state = State.WAITING
                    entry.score = entry.score if entry.place is None else entry.place
        if self.now >= self.grace:
            for entry in self.among(State.PROCESSING)[:SWEEP]:
                if entry.score <= self.now:
                    self._take_back(entry, max_crashes, suspect)
                    dead += [entry] if entry.state is State.DEAD else []
        fence = self._ticks(1)
        given: list[Entry] = []
        aside = 0
        for entry in [] if self.paused == "1" else self.among(State.WAITING)[:limit]:
            if entry.body is None:
                self.stats["dlq_messages"] += 1
                entry.die(self.now, "body_missing", f"the message has no body in {self.prefix}:messages")
                dead.append(entry)
            elif entry.crashes >= suspect and apart == 0:
                aside += 1
                self.stats["parked"] += 1
                entry.place, entry.state, entry.score = entry.score, State.RETRY, self.now + TURN + aside * STEP
            else:
                apart -= entry.crashes >= suspect
                entry.lease = Lease(fence, entry.score, worker)
                entry.state, entry.score = State.PROCESSING, self.now + lease
                given.append(entry)
        next_due = self._next_due(self.grace)
        self.wake |= self._leasable() or (next_due is not None and len(given) == limit)
        said, self.unsaid = self.unsaid, None
        self._close()
        buried = [" ", *(entry.id for entry in dead)] if dead else []
        self.ledger[caller] = number, [str(fence), *(entry.id for entry in given), *buried]
        return self._claimed(fence, given, next_due, dead, said)

    def _take_back(self, entry: Entry, max_crashes: int, suspect: int) -> None:
        assert entry.lease
        most = 2 * max_crashes if entry.crashes >= suspect else max_crashes
        entry.crashes += 1
        entry.place = entry.lease.place
        self.stats["crashes"] += 1
        if entry.lease.cancelled:
            self.stats["cancelled"] += 1
            del self.entries[entry.id]
        elif entry.crashes >= most:
            self.stats["dlq_messages"] += 1
            entry.die(self.now, "crashed", f"the worker died or lost its lease {counted(entry.crashes, 'time')}")
        else:
            entry.state, entry.score, entry.lease.taken_back = State.WAITING, entry.place, True

    def _claimed(
        self, fence: int, entries: list[Entry], next_due: int | None, dead: list[Entry], said: tuple[int, int] | None = None
    ) -> Claimed:
        deliveries, buried = (
            [Delivery(entry.id, fence, entry.body or b"", entry.meta()) for entry in some] for some in (entries, dead)
        )
        set_back = ClockSetBack(said[0] / 1_000_000, said[1]) if said else None
        return Claimed(deliveries, None if next_due is None else next_due / 1_000_000, dead=buried or (), set_back=set_back)

    def _leasable(self) -> bool:
        return bool(self.among(State.WAITING)) and self.paused != "1"

    def _next_due(self, grace: int) -> int | None:
        if self._leasable():
            return 0
        times = [entry.score for state in (State.DELAYED, State.RETRY) for entry in self.among(state)]
        times += [max(entry.score, grace) for entry in self.among(State.PROCESSING)]
        return max(min(times) - self.now, 0) if times else None

    def settle(self, caller: str, number: int, settlements: Sequence[Settlement], run_time: int) -> list[str]:
        answer = self._recall(caller, number)
        if answer is not None or not settlements:
            return answer or []
        self._open(follows=True)
        stale = []
        for settlement in sorted(settlements, key=lambda settlement: settlement.op != "ack"):
            entry = self.entries.get(settlement.id)
            lease = entry.lease if entry else None
            if entry and lease and lease.fence == settlement.fence and (settlement.op == "ack" or not lease.taken_back):
                self._end(entry, lease, settlement)
            else:
                stale.append(settlement.id)
        self.stats.update(stale=len(stale), run_time_us=run_time)
        self._close()
        self.ledger[caller] = number, stale
        return stale

    def _end(self, entry: Entry, lease: Lease, how: Settlement) -> None:
        entry.lease = None
        if how.op == "ack":
            self.stats.update(processed_requests=1, late_acks=int(lease.taken_back))
            del self.entries[entry.id]
        elif lease.cancelled and how.op != "dead":
            self.stats["cancelled"] += 1
            del self.entries[entry.id]
        elif how.op == "release":
            self.stats["released"] += 1
            entry.state, entry.score, self.wake = State.WAITING, lease.place, True
        elif how.op == "dead":
            self.stats["dlq_messages"] += 1
            entry.place = lease.place
            entry.die(self.now, how.reason, f"{how.text}{STACK_MARK}{how.stack}" if how.stack else how.text)
        else:
            due, waiting = self.now + how.delay, self.among(State.RETRY)
            self.wake |= not waiting or due < waiting[0].score
            self.stats["retry_count" if how.op == "retry" else "parked"] += 1
            entry.attempt += how.op == "retry"
            entry.parks += how.op == "park"
            entry.state, entry.score, entry.place, entry.reason, entry.text = State.RETRY, due, lease.place, how.reason, how.text

    def restore(self, caller: str, number: int, leases: Sequence[tuple[str, int]], limit: int, age: int) -> Restored:
        answer = self._recall(caller, number)
        if answer is not None:
            cut = answer.index(" ") if " " in answer else len(answer)
            return Restored(answer[:cut], answer[cut + 1 :])
        self._open()
        stale: list[str] = []
        dead: list[str] = []
        for ident, fence in leases:
            entry = self.entries.get(ident)
            lease = entry.lease if entry else None
            if entry and lease and lease.fence == fence and not lease.taken_back:
                self._restore(entry, lease, limit, age)
                dead += [ident] if entry.state is State.DEAD else []
            else:
                stale.append(ident)
        self.stats["stale"] += len(stale)
        self._close()
        self.ledger[caller] = number, [*stale, *([" ", *dead] if dead else [])]
        return Restored(stale, dead)

    def _restore(self, entry: Entry, lease: Lease, limit: int, age: int) -> None:
        if lease.cancelled:
            self.stats["cancelled"] += 1
            del self.entries[entry.id]
            return
        entry.place = lease.place
        entry.requeues += bool(limit)
        if limit and entry.since is None:
            entry.since = self.now
        entry.parks += not limit
        self.stats["requeued" if limit else "released"] += 1
        if limit and entry.requeues >= limit and self.now - (entry.since or 0) >= age:
            self.stats["dlq_messages"] += 1
            entry.die(self.now, "delivery_limit", f"it was requeued {entry.requeues} times")
        else:
            entry.state, entry.score, lease.taken_back, self.wake = State.WAITING, lease.place, True, True

    def extend(self, leases: Sequence[tuple[str, int]], lease: int) -> dict[str, str]:
        if not leases:
            return {}
        self._open(follows=True)
        verdicts = {}
        for ident, fence in leases:
            entry = self.entries.get(ident)
            if entry and entry.lease and entry.lease.fence == fence and not entry.lease.taken_back:
                entry.score = max(entry.score, self.now + lease)
                if entry.lease.cancelled:
                    verdicts[ident] = "cancel"
            else:
                verdicts[ident] = "lost"
        self._close()
        return verdicts

    def cancel(self, caller: str, number: int, ids: Sequence[str]) -> list[str]:
        answer = self._recall(caller, number)
        if answer is not None:
            return answer
        self._open()
        marked = []
        for ident in ids:
            entry = self.entries.get(ident)
            if entry and entry.lease and not entry.lease.taken_back:
                entry.lease.cancelled = True
                marked.append(ident)
        self._close()
        self.ledger[caller] = number, marked
        return marked

    def find(self, ident: str) -> Found | None:
        entry = self.entries.get(ident)
        if not entry:
            return None
        position = self.among(entry.state).index(entry) + 1
        worker = entry.lease.worker if entry.lease and not entry.lease.taken_back else None
        return Found(entry.state.value, entry.score, position, entry.body or b"", entry.meta(), worker)

    def inspect(self) -> QueueView:
        lengths = [len(self.among(state)) for state in ZSETS]
        # Ids of tests tell no head start.
        oldest = [max(self.now - entry.score, 0) for entry in self.among(State.WAITING)[:1]]
        overdue = [self.now - entry.score for state in (State.DELAYED, State.RETRY) for entry in self.among(state)]
        expired = [self.now - entry.score for entry in self.among(State.PROCESSING)]
        past = [sorted((age / 1_000_000 for age in ages if age >= 0), reverse=True) for ages in (overdue, expired)]
        ages = [[age / 1_000_000 for age in oldest], *past]
        return QueueView(
            *lengths,
            self.paused == "1",
            max((age for each in ages for age in each), default=None),
            dict(+self.stats),
            overdue=len(past[0]),
            overdue_age=next(iter(past[0]), None),
            expired=len(past[1]),
            expired_age=next(iter(past[1]), None),
            bodiless=sum(
                entry.body is None and entry.state is not State.PROCESSING and entry.reason != "body_missing"
                for entry in self.entries.values()
            ),
        )

    def snapshot(self) -> Snapshot:
        """What every key of the queue must hold."""
        entries = list(self.entries.values())
        config = {
            "layout": "1" if self.layout else None,
            "lease": self.lease,
            "grace_until": self.grace,
            "paused": self.paused,
            "rules": self.rules,
            "seen": self.seen and " ".join(map(str, (self.seen, *(self.unsaid or ())))),
        }
        return Snapshot(
            states={state: {entry.id: entry.score for entry in entries if entry.state is state} for state in ZSETS},
            bodies={entry.id: entry.body for entry in entries if entry.body is not None},
            leases={entry.id: entry.lease.record() for entry in entries if entry.lease},
            meta={entry.id: entry.record() for entry in entries if entry.record()},
            clock=self.clock,
            stats=dict(+self.stats),
            config={name: str(value) for name, value in config.items() if value},
            wake=self.wake,
            calls={caller: "\n".join([str(number), *answer]) for caller, (number, answer) in self.ledger.items()},
        )
