"""Any sequence of calls on two queues of one group: no limit is passed by both together, and nobody waits for ever.

A real server and fakeredis get the same calls and give the same answers.
`REDISQ_STATEFUL_EXAMPLES=5000 pytest -m chaos tests/contracts/test_groups_machine.py` runs longer.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from redisq.app.waiting import run
from redisq.broker import commands, gates
from redisq.broker.commands import Command, Enqueue, Settlement
from redisq.broker.connector import Connector
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.broker.repair import Losses, look
from redisq.broker.scripts import Scripts
from tests.clock import START, clock_key, scripts
from tests.contracts import gates_check
from tests.contracts.gates_check import Gates, Needs
from tests.contracts.test_state_machine import call
from tests.servers import RedisServer

EXAMPLES = int(os.environ.get("REDISQ_STATEFUL_EXAMPLES", "0"))
SECOND = 1_000_000
LEASE = 30 * SECOND
FAR = 2**60
GROUP = GroupKeys("g")
QUEUES = (QueueKeys("q"), QueueKeys("r"))

RULES = {"bot": "3 1000000 2", "chat": "1 1000000 1", "llm": "2", "tok": "100 1000000 50"}
OTHER_RULES = {"bot": ("1 1000000 1", "30 1000000 5"), "llm": ("1", "3"), "chat:1": ("1 10000000 1",)}
NEEDS = (
    "F bot Rbot,1",
    "F llm Sllm,1",
    "F tok Rtok,{}",
    "C @0 Rbot,1 Sllm,1",
    "C @1 Rchat:1,1 Rbot,1",
    "F llm+bot Sllm,1 Rbot,1",
    "",
)

queues = st.sampled_from(QUEUES)
indexes = st.integers(0, 20)
jumps = st.sampled_from([0, 1, 4999, 5000, 333_334, SECOND, 3 * SECOND, LEASE // 3, LEASE + 1])
ops = st.sampled_from(["ack", "ack", "ack", "retry", "release", "dead", "limited"])
places = st.sampled_from(["bot", "chat", "chat:1", "llm", "tok"])


class GroupsMachine(RuleBasedStateMachine):
    clients: ClassVar[Sequence[Any]]
    connectors: ClassVar[Sequence[Connector]]
    scripts: ClassVar[Scripts] = scripts()

    def __init__(self) -> None:
        super().__init__()
        for client in self.clients:
            client.flushall()
        self.now = START
        self.numbers, self.calls = itertools.count(), itertools.count(1)
        self.needs: dict[str, Needs] = {}
        self.held: dict[QueueKeys, list[tuple[str, int]]] = {keys: [] for keys in QUEUES}
        self.sleeps_until = dict.fromkeys(QUEUES, 0)
        self.grants: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._move(0)
        for keys in QUEUES:
            self._steps(gates.define_limits(keys, RULES, "g"))

    def teardown(self) -> None:
        for keys in QUEUES:
            self._call(commands.pause(keys, False))
            for gate in ("bot", "chat", "chat:1", "llm", "tok"):
                self._steps(gates.resume(keys, gate))
        self.drain()
        for client in self.clients:
            client.flushall()

    # How a call is made and checked.

    def _call(self, command: Command[Any]) -> Any:
        identity = ("c", next(self.calls)) if command.numbered else ()
        real, fake = (call(client, self.scripts[command.script], command, *identity) for client in self.clients)
        assert not isinstance(real, Exception), str(real)
        assert real == fake
        return real

    def _steps(self, steps: Generator[Any, Any, Any]) -> Any:
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

    def _observe(self) -> dict[QueueKeys, Gates]:
        states = {keys: gates_check.read(self.clients[0], keys) for keys in QUEUES}
        for keys, state in states.items():
            assert state == gates_check.read(self.clients[1], keys)
            gates_check.check(state, self.now, alone=False)
            assert run(look(keys, 30 * SECOND), self.connectors[0]) == Losses(), "a queue that is well has lost nothing"
            self._check_sleep(keys, state)
        return states

    def _check_sleep(self, keys: QueueKeys, state: Gates) -> None:
        hint = bool(self.clients[0].exists(keys.wake))
        if not state.queue_paused and state.main and (not state.gated or state.run):
            assert hint, f"there is work in {keys.queue}, and no hint of it"
            return
        rows = [at for name in ("delayed", "retry", "processing") for _, at in self._rows(keys, name)]
        opens = [at for gate, at in state.opens.items() if state.waiting.get(gate)]
        grace = float(self.clients[0].hget(keys.named("config"), "grace_until") or 0)
        due = min([*rows, *opens], default=FAR)
        assert hint or self.sleeps_until[keys] <= max(due, self.now, grace), (
            f"nobody will look at {keys.queue} when something is due"
        )

    def _rows(self, keys: QueueKeys, name: str) -> list[tuple[bytes, float]]:
        rows: list[tuple[bytes, float]] = self.clients[0].zrange(keys.named(name), 0, -1, withscores=True)
        return rows

    def _granted(self, ident: str, state: Gates) -> None:
        """One more was leased: no rate was passed by all queues together, in any window that ends now (I23)."""
        for need in self.needs[ident].needs if ident in self.needs else ():
            rule = state.rule(need.gate)
            assert state.paused_until(need.gate) <= self.now, f"{ident} passed {need.gate}, which is paused"
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

    def _slots(self) -> Counter[str]:
        """Slots of leases that have not run out, of all queues together."""
        return Counter(
            need.gate
            for keys in QUEUES
            for ident, until in self._rows(keys, "processing")
            if until > self.now and ident.decode() in self.needs
            for need in self.needs[ident.decode()].needs
            if need.kind == "S"
        )

    # The operations.

    @rule(keys=queues, many=st.lists(st.tuples(st.sampled_from(NEEDS), st.sampled_from([1, 20, 60])), min_size=1, max_size=5))
    def enqueue(self, keys: QueueKeys, many: list[tuple[str, int]]) -> None:
        messages = []
        for needs, cost in many:
            ident = f"{keys.queue}{next(self.numbers)}"
            line = f"0 {needs.format(cost)}" if needs else ""
            if line:
                self.needs[ident] = Needs.of(line)
            messages.append(Enqueue(ident, b"", descriptor=line, definitions=RULES, group=GROUP.prefix))
        self._call(commands.enqueue(keys, messages))
        self._observe()

    @rule(keys=queues, limit=st.sampled_from([0, 1, 1, 2, 20]))
    def claim(self, keys: QueueKeys, limit: int) -> None:
        self._claim(keys, limit)

    def _claim(self, keys: QueueKeys, limit: int) -> int:
        for client in self.clients:
            client.delete(keys.wake)
        before = self._slots()
        answer = self._call(commands.claim(keys, worker="w", limit=limit, lease=LEASE, max_crashes=30))
        leased = [delivery.id for delivery in answer.deliveries]
        due = FAR if answer.next_due is None else self.now + round(answer.next_due * SECOND)
        self.sleeps_until[keys] = FAR if len(leased) == limit else due
        state = self._observe()[keys]
        for ident in leased:
            self._granted(ident, state)
        for gate, count in self._slots().items():
            rule = state.rule(gate)
            assert not rule or count <= max(rule[0], before[gate]), f"I22: {count} slots of {gate} held"
        self.held[keys] += [(delivery.id, delivery.fence) for delivery in answer.deliveries]
        return len(leased)

    @rule(keys=queues, op=ops, index=indexes, delay=st.sampled_from([0, SECOND]), gate=places)
    def settle(self, keys: QueueKeys, op: str, index: int, delay: int, gate: str) -> None:
        held = self.held[keys]
        if not held:
            return
        ident, fence = held.pop(index % len(held))
        settlement = Settlement(op, ident, fence, delay, "failed", "no")
        if op == "limited":
            settlement = commands.limited(ident, fence, gate=gate, pause=delay, jitter=0, text="429")
        self._call(commands.settle(keys, [settlement], 1))
        self._observe()

    @rule(keys=queues, index=indexes)
    def extend(self, keys: QueueKeys, index: int) -> None:
        held = self.held[keys]
        if held:
            before = self._slots()
            self._call(commands.extend(keys, [held[index % len(held)]], lease=LEASE))
            assert self._slots() == before, "I22: a slot of a lease that ran out is held again"

    @rule(keys=queues)
    def die(self, keys: QueueKeys) -> None:
        """Who held what the queue leased is no more."""
        self.held[keys].clear()

    @rule(keys=queues, gate=places, length=st.sampled_from([SECOND, 10 * SECOND, None]))
    def pause(self, keys: QueueKeys, gate: str, length: int | None) -> None:
        self._steps(gates.pause(keys, gate, length))
        self._observe()

    @rule(keys=queues, gate=places)
    def resume(self, keys: QueueKeys, gate: str) -> None:
        self._steps(gates.resume(keys, gate))
        self._observe()

    @rule(keys=queues, paused=st.booleans())
    def pause_queue(self, keys: QueueKeys, paused: bool) -> None:
        self._call(commands.pause(keys, paused))
        self._observe()

    @rule(keys=queues, name=st.sampled_from(sorted(OTHER_RULES)), index=indexes)
    def set_limit(self, keys: QueueKeys, name: str, index: int) -> None:
        rules = (*OTHER_RULES[name], "")
        self.grants.clear()
        self._steps(gates.set_limit(keys, name, rules[index % len(rules)]))
        self._observe()

    @rule(keys=queues, group=st.sampled_from([None, GROUP]))
    def leave_and_come_back(self, keys: QueueKeys, group: GroupKeys | None) -> None:
        """A deploy without the group, and its undoing; nothing is claimed meanwhile."""
        self._call(commands.join(keys, group))
        self._call(commands.join(keys, GROUP))
        self._observe()

    @rule(jump=jumps)
    def advance(self, jump: int) -> None:
        self._pass(jump)

    @rule(keys=queues, jump=jumps, limit=st.sampled_from([1, 20]))
    def serve(self, keys: QueueKeys, jump: int, limit: int) -> None:
        """One queue alone is served, and looked after, for a time."""
        self._claim(keys, limit)
        self._pass(jump, [keys])
        held, self.held[keys] = self.held[keys], []
        self._call(commands.settle(keys, [Settlement("ack", *pair) for pair in held], 1))
        self._observe()
        self._claim(keys, limit)

    @rule()
    def drain(self) -> None:
        """With workers that sleep as they are told, all that is not held up by hand runs in the end."""
        if any(self.clients[0].hget(keys.named("config"), "paused") == b"1" for keys in QUEUES):
            return
        if any(at == float("inf") for _, at in self.clients[0].zrange(GROUP.named("pauses"), 0, -1, withscores=True)):
            return
        for _ in range(600):
            if not any(self._rows(keys, name) for keys in QUEUES for name in ("main", "delayed", "retry", "processing")):
                return
            busy = False
            for keys in QUEUES:
                if self.clients[0].exists(keys.wake) or self.sleeps_until[keys] <= self.now:
                    self._claim(keys, 20)
                if self.held[keys]:
                    held, self.held[keys] = self.held[keys], []
                    self._call(commands.settle(keys, [Settlement("ack", *pair) for pair in held], 1))
                    busy = True
            self._observe()
            if not busy and not any(self.clients[0].exists(keys.wake) for keys in QUEUES):
                # An idle worker's block ends after a second at the latest.
                until = min(*self.sleeps_until.values(), self.now + SECOND)
                self._move(max(until - self.now, 0))
                for keys in QUEUES:
                    if self.now >= until:
                        self.sleeps_until[keys] = min(self.sleeps_until[keys], self.now)
        raise AssertionError("something waits for ever")

    # Time.

    def _move(self, us: int) -> None:
        self.now += us
        for client in self.clients:
            for keys in QUEUES:
                client.set(clock_key(keys.prefix), self.now)

    def _pass(self, us: int, served: Sequence[QueueKeys] = QUEUES) -> None:
        """Time goes by without a gap in the queues that are served."""
        until = self.now + us
        while self.now < until:
            self._move(min(until - self.now, LEASE // 3))
            if self.now < until:
                for keys in served:
                    self._claim(keys, 0)


@pytest.mark.parametrize("examples", [8, pytest.param(EXAMPLES or 25, marks=pytest.mark.chaos)])
@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_limits_that_queues_share_hold_whatever_happens(redis_server: RedisServer, raw: redis.Redis, examples: int) -> None:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2) as fake:

        class Machine(GroupsMachine):
            clients = (raw, fake)
            connectors = tuple(Connector(client, scripts()) for client in (raw, fake))

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                print_blob=True,
                phases=(Phase.explicit, Phase.reuse, Phase.generate, *([] if EXAMPLES else [Phase.shrink])),
                suppress_health_check=list(HealthCheck),
            ),
        )
