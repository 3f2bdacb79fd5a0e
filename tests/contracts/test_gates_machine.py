"""Any sequence of calls on a queue with lanes, limits, slots, pauses and dedupe keys: after each, every index is as it must be.

A real server and fakeredis get the same calls and give the same answers. What a claim leases is judged by what is promised,
not foretold: lanes in order and one at a time, no limit passed, nothing left that could run, nobody asleep who must wake.
`REDISQ_STATEFUL_EXAMPLES=5000 pytest -m chaos tests/contracts/test_gates_machine.py` runs longer.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from redisq.app.waiting import run
from redisq.broker import commands, gates
from redisq.broker.commands import Command, Dedupe, Enqueue, Settlement
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.repair import Losses, look
from redisq.broker.scripts import Scripts
from tests.clock import START, clock_key, scripts
from tests.contracts import gates_check
from tests.contracts.gates_check import Gates, Needs
from tests.contracts.test_state_machine import call
from tests.keyspace import everything
from tests.servers import RedisServer

EXAMPLES = int(os.environ.get("REDISQ_STATEFUL_EXAMPLES", "0"))
SECOND = 1_000_000
LEASE = 30 * SECOND
FAR = 2**60
KEYS = QueueKeys("q")

#: The rules in the code: a rate of a bot, one for each chat, slots, and a budget.
RULES = {"bot": "3 1000000 2", "chat": "1 1000000 1", "llm": "2", "tok": "100 1000000 50"}
#: What an operator may set.
OTHER_RULES = {
    "bot": ("1 1000000 1", "30 1000000 5"),
    "chat": ("5 1000000 3",),
    "chat:1": ("1 10000000 1",),
    "tok": ("10 1000000 5",),
}

indexes = st.integers(0, 20)
jumps = st.sampled_from([0, 1, 333_333, 333_334, SECOND // 2, SECOND, 3 * SECOND, LEASE // 2, LEASE + 1, 2 * LEASE])
dues = st.sampled_from(["0"] * 5 + ["+1", f"+{SECOND}", f"+{LEASE}"])
heads = st.sampled_from([0, 0, 0, 1, 60 * SECOND])
lanes = st.sampled_from(["", "", "C @0", "C @0", "C @1", "C @2", "H @3"])
limits = st.one_of(
    st.just(["Rbot,1"]),
    st.lists(st.sampled_from(["Rbot,1", "Rchat:{},1", "Sllm,1", "Rtok,{}", "Rmodel:x,0"]), max_size=3, unique=True),
)
# A window ends by the real clock: a long one.
dedupes = st.one_of(
    *[st.none()] * 4,
    st.builds(
        Dedupe,
        st.sampled_from(["k", "l"]),
        st.sampled_from(["ignore", "replace", "extend"]),
        st.sampled_from([0, 0, 3600 * SECOND]),
    ),
)
posts = st.tuples(lanes, limits, st.sampled_from([1, 20, 60]), heads, dues, dedupes, st.sampled_from([0, 0, 0, 2]))
ops = st.sampled_from(["ack", "ack", "ack", "retry", "park", "crash", "release", "dead", "limited", "cancel", "result"])
delays = st.sampled_from([0, 1, SECOND, 20 * SECOND])
places = st.sampled_from(["bot", "chat:1", "chat", "model:x", "tok", "llm", "@0", "@3", "elsewhere"])
lengths = st.sampled_from([SECOND, 10 * SECOND, None])


def descriptor(lane: str, limits: Sequence[str], number: int, head: int) -> str:
    """The line for these, as `redisq.gates.descriptor` writes it."""
    chat = lane.partition("@")[2] or "1"
    needs = [limit.format(chat if "chat" in limit else number) for limit in limits]
    if not lane and not needs:
        return ""
    flow = lane or "F " + "+".join(need[1:].split(",")[0] for need in needs)
    return " ".join([str(head), flow, *needs])


class GatesMachine(RuleBasedStateMachine):
    clients: ClassVar[Sequence[Any]]
    connectors: ClassVar[Sequence[Connector]]
    scripts: ClassVar[Scripts] = scripts()

    def __init__(self) -> None:
        super().__init__()
        for client in self.clients:
            client.flushall()
        self.now = START
        self._move(0)
        self.state = Gates()
        self.numbers = itertools.count()
        self.calls = itertools.count(1)
        self.used: list[str] = []
        self.given: list[tuple[str, int]] = []
        self.sleeps_until = 0
        # Gate -> what it let through by its rule of now: when, how much.
        self.grants: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.needs: dict[str, Needs] = {}

    @initialize(before=st.integers(0, 3), first=st.lists(posts, min_size=2, max_size=8))
    def begin(self, before: int, first: list[Any]) -> None:
        if before:  # messages of a time when there were no gates
            self._call(commands.enqueue(KEYS, [Enqueue(self._name(), b"") for _ in range(before)]))
            self._observe()
        self.enqueue(first, False)

    def teardown(self) -> None:
        for client in self.clients:
            client.flushall()

    # How a call is made and checked.

    def _name(self) -> str:
        self.used.append(f"{'amz'[len(self.used) * 7 % 3]}{next(self.numbers)}")
        return self.used[-1]

    def _call(self, command: Command[Any], repeated: bool = False) -> Any:
        identity = ("c", next(self.calls)) if command.numbered else ()
        real, fake = (call(client, self.scripts[command.script], command, *identity) for client in self.clients)
        assert not isinstance(real, Exception), str(real)
        assert real == fake
        if repeated and command.numbered:
            before = everything(self.clients[0])
            again = [call(client, self.scripts[command.script], command, *identity) for client in self.clients]
            if command.script == "claim":
                real_again, fake_again = again
                assert real_again == fake_again
                assert real_again.deliveries == real.deliveries
            else:
                assert again == [real, real]
            assert everything(self.clients[0]) == before, "a repeated call changed something"
        return real

    def _steps(self, steps: Generator[Any, Any, Any]) -> Any:
        """Carry the steps of an operator's command out on both servers."""

        answer = None
        try:
            while True:
                step = steps.send(answer)
                many = step if isinstance(step, tuple) else (step,)
                answers, _ = (connector.execute_many(many) for connector in self.connectors)
                assert not any(isinstance(each, Exception) for each in answers), answers
                answer = answers if isinstance(step, tuple) else answers[0]
        except StopIteration as stop:
            return stop.value

    def _observe(self, *, served: bool = False, leased: Sequence[str] = ()) -> None:
        before, self.state = self.state, gates_check.read(self.clients[0], KEYS)
        fake = gates_check.read(self.clients[1], KEYS)
        assert self.state == fake
        for ident, needs in self.state.needs.items():
            self.needs[ident] = needs
        for ident in leased:
            self._granted(ident)
        gates_check.check(self.state, self.now, served=served)
        assert run(look(KEYS, 30 * SECOND), self.connectors[0]) == Losses(), "a queue that is well has lost nothing"
        for gate, count in self.state.slots.items():
            rule = self.state.rule(gate)
            assert not rule or count <= max(rule[0], before.slots.get(gate, 0)), f"I22: {count} slots of {gate} held"
        self._check_sleep()

    def _check_sleep(self) -> None:
        """The hint is there when there is work; else somebody looks when something is due."""
        state = self.state
        hint = bool(self.clients[0].exists(KEYS.wake))
        paused = state.queue_paused
        if not paused and state.main and (not state.gated or state.run or state.untold):
            assert hint, "there is work, and no hint of it"
            return
        grace = float(self.clients[0].hget(KEYS.named("config"), "grace_until") or 0)
        dues = [score for name in ("delayed", "retry") for _, score in self._rows(f"queue:{name}")]
        dues += [max(score, grace) for _, score in self._rows("queue:processing")]
        dues += [at for gate, at in state.opens.items() if state.waiting.get(gate)]
        assert hint or not dues or self.sleeps_until <= max(min(dues), self.now), "nobody will look when something is due"

    def _rows(self, name: str) -> list[tuple[bytes, float]]:
        rows: list[tuple[bytes, float]] = self.clients[0].zrange(f"{KEYS.prefix}:{name}", 0, -1, withscores=True)
        return rows

    def _granted(self, ident: str) -> None:
        """One more was leased: no rate was passed, in any window that ends now (I23)."""
        needs = self.needs.get(ident)
        for need in needs.needs if needs else ():
            rule = self.state.rule(need.gate)
            assert self.state.paused_until(need.gate) <= self.now, f"{ident} passed {need.gate}, which is paused"
            if need.kind != "R" or not need.cost or len(rule) != 3:
                continue
            count, period, burst = rule
            grants = self.grants[need.gate]
            grants.append((self.now, need.cost))
            total, dearest = 0, 0
            for at, cost in reversed(grants):
                total, dearest = total + cost, max(dearest, cost)
                most = max(burst, dearest) + count * (self.now - at) / period
                assert total <= most, f"I23: {need.gate} let {total} through in {self.now - at} us, at most {most} were allowed"
        if needs and needs.kind != "F":
            assert self.state.pauses.get(needs.flow, 0) <= self.now, f"{ident} passed its lane, which is paused"

    # The operations.

    @rule(posts=st.lists(posts, min_size=1, max_size=4), repeated=st.booleans())
    def enqueue(self, posts: list[Any], repeated: bool) -> None:
        messages = []
        for lane, limits, number, head, due, dedupe, cap in posts:
            line = descriptor(lane, limits, number, head)
            messages.append(Enqueue(self._name(), b"%d" % len(self.used), head, due, "", line, cap, dedupe, RULES))
        answer = self._call(commands.enqueue(KEYS, messages), repeated)
        before = self.state
        self._observe()
        stored = set(self.state.states) - set(before.states)
        assert stored == {message.id for message in messages} - set(answer.owners) - set(answer.refused)
        for message in messages:
            if message.id in answer.refused:
                flow = Needs.of(message.descriptor).flow
                there = len(self.state.flows.get(flow, ())) + (flow in self.state.lanes)
                assert there >= message.lane_cap, f"a lane of {there} was called full"
            if message.id in answer.owners:
                assert message.dedupe, "a message without a dedupe key was not stored"

    @rule(limit=st.sampled_from([0, 1, 1, 2, 3, 20]), apart=st.sampled_from([0, 1, 1000]), repeated=st.booleans())
    def claim(self, limit: int, apart: int, repeated: bool) -> None:
        self._claim(limit, apart, repeated)

    def _claim(self, limit: int, apart: int = 1000, repeated: bool = False) -> list[tuple[str, int]]:
        for client in self.clients:
            client.delete(KEYS.wake)
        before = gates_check.read(self.clients[0], KEYS)
        command = commands.claim(KEYS, worker="w", limit=limit, lease=LEASE, max_crashes=3, apart=apart)
        answer = self._call(command, repeated)
        leased = [delivery.id for delivery in answer.deliveries]
        due = FAR if answer.next_due is None else self.now + round(answer.next_due * SECOND)
        self.sleeps_until = FAR if len(leased) == limit else due
        after = gates_check.read(self.clients[0], KEYS).states
        aside = {ident for ident, state in after.items() if state == "retry" and before.states.get(ident) != "retry"}
        self._observe(served=len(leased) + len(aside) < limit and not before.queue_paused, leased=leased)
        self._check_lane_order(before, leased)
        pairs = [(delivery.id, delivery.fence) for delivery in answer.deliveries]
        self.given += pairs
        return pairs

    def _check_lane_order(self, before: Gates, leased: Sequence[str]) -> None:
        seen = set()
        for ident in leased:
            needs = self.needs.get(ident)
            if not needs or needs.kind == "F":
                continue
            assert needs.flow not in seen, f"I15: two of lane {needs.flow} at once"
            seen.add(needs.flow)
            holder = before.lanes.get(needs.flow)
            if holder and holder != ident:
                # Its holder ended in this very call: it expired, and was dead or cancelled.
                assert self.state.states.get(holder) in (None, "dlq"), f"I15: {ident} passed {holder} in lane {needs.flow}"
            place = float(self.state.leases[ident].split(" ")[1])
            followers = self.state.flows.get(needs.flow, {})
            if not holder or holder != ident:
                late = {other: at for other, at in followers.items() if at < place}
                assert not late, f"I15: {ident} passed {late} in lane {needs.flow}"

    def _pick(self, old: bool, index: int) -> tuple[str, int]:
        current = [(ident, int(lease.lstrip("x").split(" ")[0])) for ident, lease in sorted(self.state.leases.items())]
        pool = self.given if old or not current else current
        return pool[index % len(pool)] if pool else ("nobody", 1)

    def _settlement(self, op: str, ident: str, fence: int, delay: int, gate: str) -> Settlement:
        if op == "limited":
            return commands.limited(ident, fence, gate=gate, pause=delay, jitter=delay // 3, text="429")
        # A result is kept by the real clock: for long, or it goes while it is looked at.
        return Settlement(op, ident, fence, 3600 * SECOND if op == "result" else delay, "failed", "no")

    @rule(
        items=st.lists(
            st.tuples(ops, st.sampled_from([False, False, False, True]), indexes, delays, places), min_size=1, max_size=4
        ),
        repeated=st.booleans(),
    )
    def settle(self, items: list[Any], repeated: bool) -> None:
        settlements = [self._settlement(op, *self._pick(old, index), delay, gate) for op, old, index, delay, gate in items]
        self._call(commands.settle(KEYS, settlements, 1), repeated)
        self._observe()

    @rule(
        gate=st.sampled_from(["Rbot,1", "Rchat:1,1", "Rtok,20", "Sllm,1"]),
        count=st.integers(1, 5),
        after=st.sampled_from([0, 1, 333_333, 999_000, 999_999]),
    )
    def flood(self, gate: str, count: int, after: int) -> None:
        """Many want the same, and a little later others do: no more passes than is there."""
        for number in (count, 2):
            flow = f"F {gate[1:].partition(',')[0]}"
            many = [Enqueue(self._name(), b"", descriptor=f"0 {flow} {gate}", definitions=RULES) for _ in range(number)]
            self._call(commands.enqueue(KEYS, many))
            self._observe()
            self._claim(20)
            self._pass(after)

    @rule(lane=st.sampled_from(["C @0", "C @1", "H @3"]), op=ops, delay=delays)
    def lane(self, lane: str, op: str, delay: int) -> None:
        """Two of a lane; what runs of it, if anything does, ends."""
        self._call(commands.enqueue(KEYS, [Enqueue(self._name(), b"", descriptor=f"0 {lane}") for _ in range(2)]))
        self._observe()
        self._claim(20)
        holder = self.state.lanes.get(lane[2:])
        if holder and not self.state.leases.get(holder, "x").startswith("x"):
            fence = int(self.state.leases[holder].split(" ")[0])
            self._call(commands.settle(KEYS, [self._settlement(op, holder, fence, delay, "bot")], 1))
            self._observe()

    @rule(limit=st.integers(1, 20), op=ops, rest=st.integers(0, 2), jump=jumps, delay=delays, gate=places)
    def serve(self, limit: int, op: str, rest: int, jump: int, delay: int, gate: str) -> None:
        """Claim, take some time, settle what was claimed, or some of it."""
        pairs = self._claim(limit)
        self._pass(jump)
        pairs = pairs[: max(len(pairs) - rest, 0)]
        self._call(commands.settle(KEYS, [self._settlement(op, *pair, delay, gate) for pair in pairs], 1))
        self._observe()

    @rule(index=indexes, old=st.booleans())
    def extend(self, index: int, old: bool) -> None:
        self._call(commands.extend(KEYS, [self._pick(old, index)], lease=LEASE))
        self._observe()

    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        self._call(commands.cancel(KEYS, [self._pick(False, index)[0]]))
        self._observe()

    @rule(chosen=st.lists(indexes, min_size=1, max_size=3), dead=st.booleans(), repeated=st.booleans())
    def remove(self, chosen: list[int], dead: bool, repeated: bool) -> None:
        pool = sorted(ident for ident, state in self.state.states.items() if (state == "dlq") == dead)
        ids = [pool[index % len(pool)] for index in chosen] if pool else ["nobody"]
        states, counter = (["dead"], "dropped") if dead else (["waiting", "delayed", "retry"], "cancelled")
        self._call(commands.remove(KEYS, ids, counter=counter, states=states), repeated)
        self._observe()

    @precondition(lambda self: "dlq" in self.state.states.values())
    @rule(chosen=st.lists(indexes, min_size=1, max_size=3), repeated=st.booleans())
    def replay(self, chosen: list[int], repeated: bool) -> None:
        pool = sorted(ident for ident, state in self.state.states.items() if state == "dlq")
        self._call(commands.replay(KEYS, [pool[index % len(pool)] for index in chosen]), repeated)
        self._observe()

    @rule(gate=places, length=lengths)
    def pause(self, gate: str, length: int | None) -> None:
        self._steps(gates.pause(KEYS, gate, length))
        self._observe()

    @rule(gate=places)
    def resume(self, gate: str) -> None:
        self._steps(gates.resume(KEYS, gate))
        self._observe()

    @rule(paused=st.booleans())
    def pause_queue(self, paused: bool) -> None:
        self._call(commands.pause(KEYS, paused))
        self._observe()

    @rule(name=st.sampled_from(sorted(OTHER_RULES)), index=indexes)
    def set_limit(self, name: str, index: int) -> None:
        rules = (*OTHER_RULES[name], "")
        # By another rule, other windows: those that began before are not looked at.
        self.grants.clear()
        self._steps(gates.set_limit(KEYS, name, rules[index % len(rules)]))
        self._observe()

    @rule()
    def look(self) -> None:
        """What an operator is shown is what there is."""
        views = {view.name: view for view in self._steps(gates.read_limits(KEYS))}
        waiting = {gate: len(flows) for gate, flows in self.state.waiting.items()}
        assert {name: view.flows for name, view in views.items() if view.flows} == waiting
        assert {name: view.in_use for name, view in views.items() if view.in_use} == self.state.slots
        self._observe()

    # Time.

    def _move(self, us: int) -> None:
        self.now += us
        for client in self.clients:
            client.set(clock_key(KEYS.prefix), self.now)

    def _pass(self, us: int) -> None:
        """Time goes by without a gap, for a worker calls in between, and looks when something is due."""
        until = self.now + us
        while self.now < until:
            self._move(min(until - self.now, LEASE // 2))
            if self.now < until:
                self._claim(0)

    @rule(jump=jumps)
    def advance(self, jump: int) -> None:
        self._pass(jump)

    @precondition(lambda self: self.state.opens)
    @rule(off=st.sampled_from([-1, 0, 0, 1]), index=indexes, limit=st.integers(0, 3))
    def approach(self, off: int, index: int, limit: int) -> None:
        """Claim at the edge of an opening."""
        openings = sorted(at for at in self.state.opens.values() if self.now < at + off < self.now + LEASE)
        if openings:
            self._pass(int(openings[index % len(openings)]) + off - self.now)
        self._claim(limit)


@pytest.mark.parametrize("examples", [12, pytest.param(EXAMPLES or 40, marks=pytest.mark.chaos)])
@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_lanes_limits_and_pauses_hold_whatever_happens(redis_server: RedisServer, raw: redis.Redis, examples: int) -> None:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2) as fake:

        class Machine(GatesMachine):
            clients = (raw, fake)
            connectors = tuple(Connector(client, scripts()) for client in (raw, fake))

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                print_blob=True,
                phases=(Phase.explicit, Phase.reuse, Phase.generate, *([] if EXAMPLES else [Phase.shrink])),
                suppress_health_check=list(HealthCheck),
            ),
        )
