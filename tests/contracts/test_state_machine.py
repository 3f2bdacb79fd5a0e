"""Any sequence of calls, faults and clock moves: a real server, fakeredis and the model agree after every step.

`REDISQ_STATEFUL_EXAMPLES=5000 pytest -m chaos tests/contracts/test_state_machine.py` runs longer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from redis import exceptions as redis_errors

from redisq.broker import commands
from redisq.broker.commands import Claimed, Command, Enqueue, Settlement
from redisq.broker.keys import QueueKeys
from redisq.broker.scripts import Scripts
from redisq.states import State
from tests.clock import clock_key, scripts
from tests.contracts import keyspace
from tests.contracts.keyspace import Snapshot
from tests.contracts.model import Model
from tests.servers import RedisServer

EXAMPLES = int(os.environ.get("REDISQ_STATEFUL_EXAMPLES", "0"))
SECOND = 1_000_000
LEASE = 30 * SECOND
FAR = 2**60
KEYS = QueueKeys("chat_api")

workers = st.sampled_from(["w0", "w1"])
#: What becomes of a reply: the client hears it; loses it and repeats at once; loses it and perhaps repeats later.
replies = st.sampled_from(["heard", "heard", "heard", "repeated", "lost"])
indexes = st.integers(0, 20)
#: Which (id, fence) to name: one that is good, one of an earlier delivery, one with another message's fence, none ever given.
picks = st.sampled_from([*["current"] * 5, "old", "foreign", "invented"])
jumps = st.sampled_from([0, 1, 999, SECOND, 10 * SECOND, LEASE // 2, LEASE // 2 + 1, LEASE, 3 * LEASE + 7, -1, -1000, -3 * SECOND])
texts = st.sampled_from(["", "ValueError: no", "two\nlines", "text=score=7 crashes=9", "naïve “quote”"])
dues = st.one_of(
    st.just("0"),
    st.builds("+{}".format, st.sampled_from([0, 1, 5 * SECOND, LEASE, 10 * LEASE])),
    st.sampled_from([-1, 0, 1, -LEASE, 5 * SECOND, 100 * 366 * 86_400 * SECOND]),
)


class Call(NamedTuple):
    """A numbered call as its caller knows it; `model` does the same to the model."""

    who: str
    command: Command[Any]
    model: Callable[[str, int], Any]
    caller: str
    number: int


ops = st.sampled_from(["ack", "ack", "retry", "park", "release", "dead"])
delays = st.sampled_from([0, 1, SECOND, 20 * SECOND, 2 * LEASE])
#: Settlements to be: with a pick and an index in place of id and fence.
items = st.builds(Settlement, ops, picks, indexes, delays, st.sampled_from(["failed", "text", "unknown_task"]), texts)
#: Messages to be: (an id that was used before, if any; a letter, so that ids do not sort as they came; head start; due).
again = st.one_of(st.none(), st.none(), st.none(), indexes)
posts = st.tuples(again, st.sampled_from("amz"), st.sampled_from([0, 0, 0, 1, 60 * SECOND, 2**52, -1, -60 * SECOND]), dues)


def call(client: Any, script: Any, command: Command[Any], *identity: Any) -> Any:
    """Run a command as the connector does, but with a caller and number of our choice. Errors are returned."""
    arguments = (len(command.keys.fixed), *command.keys.fixed, command.keys.prefix, *identity, *command.args)
    try:
        try:
            return command.parse(client.execute_command("EVALSHA", script.sha, *arguments))
        except redis_errors.NoScriptError:
            return command.parse(client.execute_command("EVAL", script.source, *arguments))
    except redis_errors.ResponseError as error:
        return error


class BrokerMachine(RuleBasedStateMachine):
    clients: ClassVar[Sequence[Any]]
    scripts: ClassVar[Scripts] = scripts()

    def __init__(self) -> None:
        super().__init__()
        self._clients("flushall")
        self.model = Model(KEYS.prefix)
        self.last = Snapshot()
        self.names = (f"c{number}" for number in itertools.count())
        self.callers: dict[str, list[Any]] = {}
        self.pending: list[Call] = []
        self.used: list[str] = []
        self.given: list[tuple[str, int]] = []
        self.bodiless: set[str] = set()
        self.promised = 0  # nothing may be taken back before: I12
        self.timers: dict[str, int] = {}  # when each idle worker will look again by itself
        self.hint_lost = False  # a worker died, or does not know its answer, with the hint in its hand
        self._move(self.model.now)

    @initialize(
        max_crashes=st.sampled_from([3, 2, 1]),
        lease=st.sampled_from([LEASE, 12 * SECOND]),
        first=st.lists(posts, min_size=2, max_size=6),
        flood=st.sampled_from([None] * 9 + ["0", "+1", "+0", f"+{LEASE}"]),
    )
    def begin(self, max_crashes: int, lease: int, first: list[Any], flood: str | None) -> None:
        self.max_crashes = max_crashes
        self.leases = {"w0": LEASE, "w1": lease}
        self.enqueue(first, "heard")
        if flood:  # more than one claim promotes, or takes back, at once
            ids = [f"{'amz'[number % 3]}-{number}" for number in range(105)]
            self.used += ids
            self._enqueue([Enqueue(ident, b"", 0, flood) for ident in ids], "heard")
            answer, *_ = self._claim("w0", 103, "heard")
            self._extend([(delivery.id, delivery.fence) for delivery in answer.deliveries], LEASE)

    def teardown(self) -> None:
        self._clients("flushall")

    # How a call is made and checked.

    def _clients(self, method: str, *args: Any) -> None:
        for client in self.clients:
            getattr(client, method)(*args)

    def _observe(self) -> tuple[Snapshot, Snapshot]:
        """Read both servers; they and the model agree. Gives the digests before and after."""
        real, fake = (keyspace.read(client, KEYS) for client in self.clients)
        before, self.last = self.last, real
        assert real == fake
        assert real == self.model.snapshot()
        self.bodiless &= real.ids()
        keyspace.check(real, self.bodiless)
        if real.stats.get("clock_set_back", 0) > before.stats.get("clock_set_back", 0):
            before = keyspace.moved_back(before, real, self.model.now)
        keyspace.check_step(before, real, self.model.now)
        lease = int(before.config.get("lease", 0))
        if lease and before.clock and self.model.now - before.clock > lease / 2 and real.clock > before.clock:
            self.promised = max(self.promised, self.model.now + lease)
        if keyspace.leasable(real):
            assert real.wake, "there is work, and no hint of it"
        elif (due := min(keyspace.events(real), default=FAR)) < FAR and not self.hint_lost:
            # Times that move back with the server's clock are exact to a millisecond: a queue's ticks run a little ahead.
            assert real.wake or min(self.timers.values(), default=FAR) <= max(due, self.model.now) + 1000, (
                "nobody will look when something is due"
            )
        return before, real

    def _both(self, command: Command[Any], *identity: Any) -> Any:
        real, fake = (call(client, self.scripts[command.script], command, *identity) for client in self.clients)
        if isinstance(real, Exception):
            assert str(real) == str(fake)
        else:
            assert real == fake
        return real

    def _numbered(
        self, role: str, command: Command[Any], model: Callable[[str, int], Any], reply: str
    ) -> tuple[Any, Snapshot, Snapshot]:
        """Make a numbered call. Gives the server's answer, whether the caller hears it or not, and the digests."""
        caller = self.callers.setdefault(role, [next(self.names), 0])
        caller[1] += 1
        made = Call(role.split()[0], command, model, *caller)
        answer = self._both(command, made.caller, made.number)
        assert answer == model(made.caller, made.number)
        if command.script == "claim":
            self.timers.pop(made.who, None)
            self.hint_lost = reply == "lost"
            if reply != "lost":
                self._hear_claim(made, answer)
        before, after = self._observe()
        if reply == "repeated":
            self._repeat(made)
        elif reply == "lost":
            self.pending.append(made)
            del self.callers[role]
        return answer, before, after

    def _repeat(self, made: Call) -> None:
        """Make a call again under its old number: it answers as before, and changes nothing."""
        answer = self._both(made.command, made.caller, made.number)
        assert answer == made.model(made.caller, made.number)
        if made.command.script == "claim":
            self._hear_claim(made, answer)
        before, after = self._observe()
        assert before == after, "a repeated call changed something"

    def _hear_claim(self, made: Call, answer: Claimed) -> None:
        """A worker that has slots left sleeps until the next due time, at most."""
        if len(answer.deliveries) < made.command.args[1]:
            due = self.model.now + round(answer.next_due * SECOND) if answer.next_due is not None else FAR
            self.timers[made.who] = min(due, self.timers.get(made.who, FAR))

    # The operations.

    @rule(posts=st.lists(posts, min_size=1, max_size=4), reply=replies)
    def enqueue(self, posts: list[tuple[int | None, str, int, str | int]], reply: str) -> None:
        messages = []
        for index, letter, head, due in posts:
            number = len(self.used)
            self.used.append(f"{letter}{number}" if index is None or not self.used else self.used[index % number])
            at = due if isinstance(due, str) else str(self.model.now + due)
            messages.append(Enqueue(self.used[-1], b"body %d" % number, head, at))
        self._enqueue(messages, reply)

    def _enqueue(self, messages: list[Enqueue], reply: str) -> None:
        command = commands.enqueue(KEYS, messages)
        answer, before, after = self._numbered(
            "producer", command, lambda name, number: self.model.enqueue(name, number, messages), reply
        )
        keyspace.check_enqueue(before, after, [message.id for message in messages], answer.present)

    @rule(worker=workers, limit=st.sampled_from([0, 1, 1, 2, 3, 5]), reply=replies, apart=st.sampled_from([0, 1, 1000, None]))
    def claim(self, worker: str, limit: int, reply: str, apart: int | None) -> None:
        self._claim(worker, limit, reply, apart)

    def _claim(self, worker: str, limit: int, reply: str, apart: int | None = None) -> tuple[Claimed, Snapshot, Snapshot]:
        """Take the hint, if there is one, and claim, in one write."""
        self._clients("zpopmin", KEYS.wake)
        self.model.wake = False
        self.last = replace(self.last, wake=False)
        options = {"worker": worker, "limit": limit, "lease": self.leases[worker], "max_crashes": self.max_crashes, "apart": apart}
        answer, before, after = self._numbered(
            f"{worker} claims",
            commands.claim(KEYS, **options),
            lambda name, number: self.model.claim(name, number, **options),
            reply,
        )
        runs_apart = apart is not None
        keyspace.check_claim(before, after, self.model.now, limit, self.max_crashes, self.promised, runs_apart)
        assert all(delivery.fence > self.given[-1][1] for delivery in answer.deliveries if self.given), "I7"
        self.given += [(delivery.id, delivery.fence) for delivery in answer.deliveries]
        return answer, before, after

    def _pick(self, pick: str, index: int) -> tuple[str, int]:
        current, given = self.model.current(), self.given
        ident, fence = (self.used or ["nobody"])[index % max(len(self.used), 1)], self.model.clock + index
        if pick == "current" and current:
            return current[index % len(current)]
        if pick in ("current", "old") and given:
            return given[index % len(given)]
        if pick == "foreign" and given:
            return ident, given[index % len(given)][1]
        return ident, fence if index % 2 else 0

    @rule(worker=workers, items=st.lists(items, min_size=1, max_size=4), run_time=st.sampled_from([0, 7]), reply=replies)
    def settle(self, worker: str, items: list[Settlement], run_time: int, reply: str) -> None:
        self._settle(worker, [Settlement(op, *self._pick(pick, index), *rest) for op, pick, index, *rest in items], run_time, reply)

    @rule(worker=workers, limit=st.integers(1, 3), jump=jumps, items=st.lists(items, min_size=1, max_size=3))
    def serve(self, worker: str, limit: int, jump: int, items: list[Settlement]) -> None:
        """Claim, take some time, settle what was claimed, or some of it."""
        answer, *_ = self._claim(worker, limit, "heard")
        self._move(self.model.now + jump)
        pairs = zip(answer.deliveries, items, strict=False)
        self._settle(worker, [item._replace(id=delivery.id, fence=delivery.fence) for delivery, item in pairs], jump, "heard")

    @rule(
        worker=workers,
        limit=st.integers(1, 3),
        again=st.integers(0, 1),
        items=st.lists(items, min_size=1, max_size=3),
        reply=replies,
    )
    def overrun(self, worker: str, limit: int, again: int, items: list[Settlement], reply: str) -> None:
        """Claim, and settle only when the lease is over and somebody took the messages back, and perhaps again."""
        answer, *_ = self._claim(worker, limit, reply)
        other = "w1" if worker == "w0" else "w0"
        self.idle(other, 2 * self.leases[worker] // self.leases[other] + 1)
        self._claim(other, again, "heard")
        if reply == "lost":
            self._repeat(self.pending.pop())
        pairs = zip(answer.deliveries, items, strict=False)
        self._settle(worker, [item._replace(id=delivery.id, fence=delivery.fence) for delivery, item in pairs], 1, "heard")

    def _settle(self, worker: str, settlements: list[Settlement], run_time: int, reply: str) -> None:
        command = commands.settle(KEYS, settlements, max(run_time, 0))
        stale, before, after = self._numbered(
            f"{worker} settles", command, lambda name, number: self.model.settle(name, number, settlements, max(run_time, 0)), reply
        )
        keyspace.check_settle(before, after, settlements, stale)

    @rule(chosen=st.lists(st.tuples(picks, indexes), min_size=1, max_size=3), lease=st.sampled_from([1, SECOND, LEASE, 2 * LEASE]))
    def extend(self, chosen: list[tuple[str, int]], lease: int) -> None:
        self._extend([self._pick(*pick) for pick in chosen], lease)

    def _extend(self, leases: list[tuple[str, int]], lease: int) -> None:
        assert self._both(commands.extend(KEYS, leases, lease=lease)) == self.model.extend(leases, lease)
        before, after = self._observe()
        keyspace.check_extend(before, after, leases, self.model.now + lease)

    @rule(
        worker=workers,
        chosen=st.lists(st.tuples(picks, indexes), min_size=1, max_size=3),
        limit=st.sampled_from([0, 0, 1, 2, 20]),
        age=st.sampled_from([0, 0, 1, 10_000_000]),
        reply=replies,
    )
    def restore(self, worker: str, chosen: list[tuple[str, int]], limit: int, age: int, reply: str) -> None:
        leases = [self._pick(*pick) for pick in chosen]
        restored, before, after = self._numbered(
            f"{worker} settles",
            commands.restore(KEYS, leases, limit=limit, age=age),
            lambda name, number: self.model.restore(name, number, leases, limit, age),
            reply,
        )
        keyspace.check_restore(before, after, leases, restored.stale)

    @rule(max_length=st.sampled_from([0, 0, 1, 3]))
    def declare(self, max_length: int) -> None:
        assert self._both(commands.declare(KEYS, max_length=max_length)) == self.model.declare(max_length)
        before, after = self._observe()
        assert before.without() == replace(after.without(), config=before.without().config), "rules changed a message"

    @rule(chosen=st.lists(indexes, min_size=1, max_size=3), reply=replies)
    def cancel(self, chosen: list[int], reply: str) -> None:
        ids = list(dict.fromkeys(self._pick("current", index)[0] for index in chosen))
        command = commands.cancel(KEYS, ids)
        marked, before, after = self._numbered(
            "operator", command, lambda name, number: self.model.cancel(name, number, ids), reply
        )
        assert before.ids() == after.ids(), "a cancel of what runs took a message"
        assert set(marked) == set(ids) & set(before.states[State.PROCESSING])

    @precondition(lambda self: self.pending)
    @rule(index=indexes, again=st.booleans())
    def repeat(self, index: int, again: bool) -> None:
        """A reply was lost some time ago; its caller asks again."""
        made = self.pending[index % len(self.pending)]
        if not again:
            self.pending.remove(made)
        self._repeat(made)

    @precondition(lambda self: self.model.ledger)
    @rule(index=indexes, back=st.integers(1, 3), script=st.sampled_from(["enqueue", "claim", "settle"]))
    def late_arrival(self, index: int, back: int, script: str) -> None:
        """A call that its caller gave up long ago comes after a newer one. It changes nothing; nor does looking."""
        callers = sorted(self.model.ledger)
        caller = callers[index % len(callers)]
        number = max(self.model.ledger[caller][0] - back, 0)
        command: Command[Any] = {
            "enqueue": commands.enqueue(KEYS, [Enqueue("late", b"")]),
            "claim": commands.claim(KEYS, worker="w0", limit=5, lease=LEASE, max_crashes=1),
            "settle": commands.settle(KEYS, [Settlement("dead", *pair) for pair in self.model.current()]),
        }[script]
        assert "REDISQ_SUPERSEDED" in str(self._both(command, caller, number))
        ident = self.used[index % len(self.used)]
        assert self._both(commands.find(KEYS, ident)) == self.model.find(ident)
        assert self._both(commands.inspect(KEYS)) == self.model.inspect()
        before, after = self._observe()
        assert before == after

    # Time and trouble.

    def _move(self, now: int) -> None:
        back = max(self.model.now - now, 0)
        self.timers = {worker: due - back for worker, due in self.timers.items()}
        if back > SECOND:
            self.promised -= back + 1000
        self.model.now = now
        self._clients("set", clock_key(KEYS.prefix), now)

    @rule(jump=jumps)
    def advance(self, jump: int) -> None:
        self._move(self.model.now + jump)

    @rule(off=st.sampled_from([-1, 0, 0, 1]), index=indexes, worker=workers, limit=st.integers(0, 3))
    def approach(self, off: int, index: int, worker: str, limit: int) -> None:
        """Claim at the edge of what is due next, or after that."""
        coming = sorted({at for at in keyspace.events(self.last) if self.model.now < at + off < self.model.now + 3 * LEASE})
        if coming:
            self._pass(coming[index % len(coming)] + off, worker)
        self._claim(worker, limit, "heard")

    @rule(worker=workers, halves=st.integers(1, 4))
    def idle(self, worker: str, halves: int) -> None:
        self._pass(self.model.now + halves * self.leases[worker] // 2, worker)
        self._claim(worker, 0, "heard")

    def _pass(self, until: int, worker: str) -> None:
        """Time goes by without a gap, for a worker calls in between."""
        while until > self.model.now:
            self._move(min(until, self.model.now + min(self.leases.values()) // 2))
            if until > self.model.now:
                self._claim(worker, 0, "heard")

    @rule(kind=st.sampled_from(["crash", "crash", "flush", "pause", "pause", "lose body"]), worker=workers, index=indexes)
    def trouble(self, kind: str, worker: str, index: int) -> None:
        if self.model.paused == "1":
            self.model.wake = True
            self._both(commands.wake(KEYS))
            self._set_paused("0")
        elif kind == "crash":
            # A worker forgets all: its callers, its unheard replies, when it wanted to look again.
            self.callers = {role: caller for role, caller in self.callers.items() if not role.startswith(worker)}
            self.pending = [made for made in self.pending if made.who != worker]
            self.hint_lost |= self.timers.pop(worker, None) is not None
        elif kind == "flush":
            self._clients("script_flush")
        elif kind == "pause":
            self._set_paused("1")
            self._claim(worker, index % 3, "heard")
        elif self.last.bodies and len(self.bodiless) < 2:
            # Somebody deletes a body, or the server evicts keys.
            ident = sorted(self.last.bodies)[index % len(self.last.bodies)]
            self.bodiless.add(ident)
            self.model.entries[ident].body = None
            self._clients("hdel", KEYS.named("messages"), ident)
            self._observe()

    def _set_paused(self, value: str) -> None:
        self.model.paused = value
        self._clients("hset", KEYS.named("config"), "paused", value)
        self._observe()


@pytest.mark.parametrize("examples", [20, pytest.param(EXAMPLES or 50, marks=pytest.mark.chaos)])
@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_both_servers_and_the_model_agree(redis_server: RedisServer, raw: redis.Redis, examples: int) -> None:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as fake:

        class Machine(BrokerMachine):
            clients = (raw, fake)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                print_blob=True,
                phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
