"""The server's clock is set back, or a replica whose clock is behind takes over: nothing waits longer for that.

What is counted from a call's time keeps what is left of it: leases, grace, retries, pauses, rates, dedupe windows. To the
millisecond: how far ticks ran ahead of the time is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redisq.broker import commands
from redisq.broker.commands import Dedupe, Enqueue, Settlement
from redisq.broker.keys import GroupKeys
from redisq.broker.registry import BEAT, Registry, announce, present
from tests.contracts.gates_check import check, read
from tests.contracts.test_broker_groups import steps
from tests.faces import LEASE, SECOND, Broker

MS = 1000
RULES = {"bot": "10 1000000 1", "tokens": "100 1000000 50", "llm": "1"}
GROUP = GroupKeys("telegram")
BOT = "F bot Rbot,1"

back = pytest.mark.parametrize("back", [5 * SECOND, 3600 * SECOND], ids=["by less than a lease", "by an hour"])


def send(broker: Broker, *ids: str, needs: str = "", group: str = "", **options: Any) -> commands.Enqueued:
    descriptor = f"0 {needs}" if needs else ""
    messages = [Enqueue(each, b"", descriptor=descriptor, definitions=RULES, group=group, **options) for each in ids]
    return broker.do(commands.enqueue(broker.keys, messages))


def other_lease(broker: Broker) -> None:
    """Lease a message that tests may settle or extend as the first call on the new clock."""
    broker.enqueue("other")
    (delivery,) = broker.claim(limit=1, worker="another").deliveries
    assert delivery.id == "other"
    broker.raw.set("foreign:fence", delivery.fence)


def told(broker: Broker) -> tuple[float, int] | None:
    """What a claim says of the clock: by how many seconds it was set back, and how many times were moved."""
    said = broker.claim(limit=0).set_back
    return said and (round(said.seconds, 3), said.moved)


def fence(broker: Broker) -> int:
    return int(broker.raw.get("foreign:fence") or 0)


#: What may be the first call that meets the new clock.
FIRST: dict[str, Callable[[Broker], Any]] = {
    "claim": lambda broker: broker.claim(limit=0),
    "settle": lambda broker: broker.settle_many([Settlement("ack", "other", fence(broker))]),
    "retry": lambda broker: broker.settle_many([Settlement("retry", "other", fence(broker), 9 * SECOND)]),
    "extend": lambda broker: broker.do(commands.extend(broker.keys, [("other", fence(broker))], lease=LEASE)),
    "enqueue": lambda broker: broker.enqueue("late", due=f"+{900 * SECOND}"),
    "remove": lambda broker: broker.do(commands.remove(broker.keys, ["none"], counter="purged", states=["waiting"])),
    "inspect": lambda broker: broker.view(),
    "pause": lambda broker: broker.do(commands.pause_gate(broker.keys, "none", SECOND)),
    "limit": lambda broker: broker.do(commands.set_limit(broker.keys, "none", "1 1000000 1")),
    "kick": lambda broker: broker.do(commands.kick(broker.keys, ["none"])),
    "join": lambda broker: broker.do(commands.join(broker.keys, None)),
}


def meet(broker: Broker, first: str = "claim") -> None:
    """Make that call on the new clock, and let a worker look for messages, as it does once a second."""
    FIRST[first](broker)
    broker.claim(limit=0)


first_call = pytest.mark.parametrize(("first", "back"), [("claim", 5 * SECOND), *((first, 3600 * SECOND) for first in FIRST)])


@first_call
def test_a_dead_workers_lease_ends_when_it_would_have_ended(broker: Broker, back: int, first: str) -> None:
    other_lease(broker)
    broker.enqueue("a")
    broker.claim_one()
    broker.pass_time(10 * SECOND)
    broker.claim(limit=0)
    broker.pass_time(-back)
    meet(broker, first)
    broker.pass_time_busily(LEASE - 10 * SECOND - MS)
    assert "a" not in broker.claimed_ids()
    broker.pass_time(MS)
    assert "a" in broker.claimed_ids()


@first_call
def test_a_retry_keeps_its_delay(broker: Broker, back: int, first: str) -> None:
    other_lease(broker)
    broker.enqueue("a")
    broker.settle("retry", broker.claim_one(), delay=7 * SECOND)
    broker.pass_time(-back)
    meet(broker, first)
    broker.pass_time(7 * SECOND - MS)
    assert "a" not in broker.claimed_ids()
    broker.pass_time(MS)
    assert "a" in broker.claimed_ids()


@first_call
def test_a_rate_opens_when_it_would_have_opened(broker: Broker, back: int, first: str) -> None:
    other_lease(broker)
    send(broker, "a", "b", needs=BOT)
    assert broker.claimed_ids() == ["a"]
    broker.pass_time(-back)
    meet(broker, first)
    assert broker.claimed_ids() == []
    broker.pass_time(100 * MS - MS)
    assert broker.claimed_ids() == []
    broker.pass_time(MS)
    assert broker.claimed_ids() == ["b"]


@back
def test_a_debt_beyond_the_burst_is_neither_forgotten_nor_longer(broker: Broker, back: int) -> None:
    send(broker, "dear", "next", needs="F tokens Rtokens,400")
    assert broker.claimed_ids() == ["dear"]
    broker.pass_time(-back)
    meet(broker)
    broker.pass_time(4 * SECOND - MS)
    assert broker.claimed_ids() == []
    broker.pass_time(MS)
    assert broker.claimed_ids() == ["next"]


@back
def test_a_rate_is_kept_by_a_queue_in_which_nothing_waits(broker: Broker, back: int) -> None:
    send(broker, "a", needs=BOT)
    broker.ack(*broker.claim().deliveries)
    broker.pass_time(-back)
    send(broker, "b", needs=BOT)
    assert broker.claimed_ids() == []
    broker.pass_time(100 * MS)
    assert broker.claimed_ids() == ["b"]


@first_call
@pytest.mark.parametrize("by", ["operator", "platform"])
def test_a_pause_keeps_its_length(broker: Broker, back: int, first: str, by: str) -> None:
    other_lease(broker)
    send(broker, "a", needs=BOT)
    if by == "operator":
        broker.do(commands.pause_gate(broker.keys, "bot", 5 * SECOND))
    else:
        (held,) = broker.claim().deliveries
        broker.settle_many([commands.limited(held.id, held.fence, gate="bot", pause=5 * SECOND, jitter=0)])
    assert broker.claimed_ids() == []
    broker.pass_time(-back)
    meet(broker, first)
    broker.pass_time(5 * SECOND - MS)
    assert "a" not in broker.claimed_ids()
    broker.pass_time(MS)
    assert "a" in broker.claimed_ids()


@back
def test_a_pause_without_end_stays(broker: Broker, back: int) -> None:
    send(broker, "a", needs=BOT)
    broker.do(commands.pause_gate(broker.keys, "bot", None))
    broker.pass_time(-back)
    for _ in range(3):
        assert broker.claimed_ids() == []
        broker.pass_time(600 * SECOND)
    broker.do(commands.pause_gate(broker.keys, "bot", 0))
    assert broker.claimed_ids() == ["a"]


@back
def test_a_holder_that_extends_keeps_its_lease(broker: Broker, back: int) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(10 * SECOND)
    assert broker.extend(delivery) == {}
    broker.pass_time(-back)
    assert broker.extend(delivery) == {}
    broker.pass_time_busily(LEASE - MS)
    assert broker.claimed_ids() == []
    broker.pass_time(MS)
    assert broker.claimed_ids() == ["a"]


@back
def test_grace_after_a_gap_ends_when_it_would_have_ended(broker: Broker, back: int) -> None:
    broker.enqueue("a")
    broker.claim_one()
    broker.pass_time(2 * LEASE)
    assert broker.claimed_ids() == []
    broker.pass_time(-back)
    broker.claim(limit=0)
    broker.pass_time_busily(LEASE - MS)
    assert broker.claimed_ids() == []
    broker.pass_time(MS)
    assert broker.claimed_ids() == ["a"]


@back
def test_a_message_with_a_due_time_keeps_that(broker: Broker, back: int) -> None:
    due = broker.now + 60 * SECOND
    broker.enqueue("a", due=str(due))
    broker.pass_time(-back)
    while broker.now < due:
        assert broker.claimed_ids() == []
        broker.pass_time(min(LEASE // 2, due - broker.now))
    assert broker.claimed_ids() == ["a"]


@back
def test_a_claim_says_it_once_and_it_is_counted(broker: Broker, back: int) -> None:
    broker.enqueue("a", "b", "c")
    retried, _ = broker.claim(limit=2).deliveries
    broker.settle("retry", retried, delay=SECOND)
    assert told(broker) is None
    broker.pass_time(-back)
    broker.extend()
    assert told(broker) == (back / SECOND, 2)
    broker.pass_time(SECOND)
    assert told(broker) is None
    assert broker.stats()["clock_set_back"] == 1


def test_a_claim_says_what_another_script_met(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(-60 * SECOND)
    broker.extend(delivery)
    broker.enqueue("b")
    broker.ack(delivery)
    assert told(broker) == (60.0, 1)
    assert told(broker) is None


def test_each_time_that_the_clock_is_set_back_counts(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim_one()
    for back in (600, 60, 1800):
        broker.pass_time(-back * SECOND)
        assert told(broker) == (float(back), 1)
        broker.pass_time(SECOND)
        assert told(broker) is None
    broker.pass_time_busily(LEASE - 3 * SECOND - MS)
    assert broker.claimed_ids() == []
    broker.pass_time(MS)
    assert broker.claimed_ids() == ["a"]
    assert broker.stats()["clock_set_back"] == 3


def test_a_clock_that_is_set_back_and_right_again_ends_no_lease(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(-3600 * SECOND)
    broker.claim(limit=0)
    broker.pass_time(3600 * SECOND)
    assert broker.claimed_ids() == []
    assert broker.extend(delivery) == {}
    assert broker.raw.hget(broker.keys.named("config"), "seen") is None


def test_a_gap_is_met_while_the_clock_is_behind(broker: Broker) -> None:
    broker.enqueue("a")
    delivery = broker.claim_one()
    broker.pass_time(-3600 * SECOND)
    broker.claim(limit=0)
    broker.pass_time(2 * LEASE)  # the server was frozen
    assert broker.claimed_ids() == []
    assert broker.extend(delivery) == {}


def test_a_clock_that_is_corrected_by_little_moves_nothing(broker: Broker) -> None:
    broker.enqueue("a")
    broker.claim_one()
    before = broker.find("a")
    broker.pass_time(-900 * MS)
    assert told(broker) is None
    assert broker.find("a") == before
    assert "clock_set_back" not in broker.stats()


@back
@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_dedupe_key_lasts_no_window_longer(broker: Broker, back: int, ends: str) -> None:
    once = Dedupe("k", "ignore", 60 * SECOND)
    send(broker, "a", dedupe=once)
    if ends == "before":
        broker.ack(broker.claim_one())
    broker.pass_time(50 * SECOND)
    broker.claim(limit=0)
    broker.pass_time(-back)
    if ends == "after":
        broker.ack(broker.claim_one())
    # Within a window of that length nobody can tell whether the key is from before.
    left = 10 * SECOND if back > 60 * SECOND else 10 * SECOND + back
    assert send(broker, "b", dedupe=once).owners == {"b": "a"}
    broker.pass_time(left - MS)
    assert send(broker, "c", dedupe=once).owners == {"c": "a"}
    broker.pass_time(MS)
    if ends == "after":
        # Real keys expire by the real time: what the scripts do with one that did not is the test above.
        broker.raw.delete(broker.keys.dedupe("k"))
    assert send(broker, "d", dedupe=once).owners == {}


@back
@pytest.mark.parametrize("what", ["a lease", "a retry"])
def test_a_look_finds_that_a_claim_has_to_see_to_it(broker: Broker, back: int, what: str) -> None:
    def next_due() -> float | None:
        (found,) = broker.do(commands.look([broker.keys]))
        return found.next_due

    broker.enqueue("a")
    delivery = broker.claim_one()
    if what == "a retry":
        broker.settle("retry", delivery, delay=7 * SECOND)
    broker.pass_time(-back)
    assert next_due() == 0
    for _ in range(3):
        due = broker.claim(limit=0).next_due
        assert due
        assert next_due() == pytest.approx(due if what == "a retry" else 0.35 * LEASE / SECOND)
        broker.pass_time(SECOND)


def test_a_worker_that_is_gone_is_not_listed_for_longer(broker: Broker) -> None:
    registry = Registry()
    for command in (*announce(registry, "gone", {}), *announce(registry, "new", {})):
        broker.do(command)
    # As a server keeps it whose clock was set back by an hour since.
    broker.raw.expire(registry.worker("gone"), 3 * BEAT + 3600)
    for _ in range(2):
        assert list(steps(broker, present(registry))) == ["gone", "new"]
        assert 0 < broker.raw.pttl(registry.worker("gone")) <= 3 * BEAT * 1000


@pytest.fixture
def casts(broker: Broker) -> Any:
    """Another queue of the group. Its clock is the same."""
    casts = broker.at("casts")
    for each in (broker, casts):
        each.do(commands.join(each.keys, GROUP))
    yield casts
    for each in (broker, casts):
        check(read(each.raw, each.keys), each.now, alone=False)


def pass_time(us: int, *brokers: Broker) -> None:
    for each in brokers:
        each.pass_time(us)


@back
def test_the_rate_of_a_group_is_moved_once(broker: Broker, casts: Broker, back: int) -> None:
    for each in (broker, casts):
        send(each, f"a of {each.keys.queue}", f"b of {each.keys.queue}", needs="F tokens Rtokens,400", group=GROUP.prefix)
    assert len(broker.claimed_ids()) == 1
    pass_time(-back, broker, casts)
    assert broker.claimed_ids() == casts.claimed_ids() == []
    pass_time(4 * SECOND - MS, broker, casts)
    assert broker.claimed_ids() == casts.claimed_ids() == []
    pass_time(MS, broker, casts)
    assert len(casts.claimed_ids()) + len(broker.claimed_ids()) == 1


@back
def test_the_pause_of_a_group_is_moved_once(broker: Broker, casts: Broker, back: int) -> None:
    for each in (broker, casts):
        send(each, "a", needs="F llm Rllm,0", group=GROUP.prefix)
    broker.do(commands.pause_gate(broker.keys, "llm", 5 * SECOND))
    assert casts.claimed_ids() == broker.claimed_ids() == []
    pass_time(-back, broker, casts)
    assert casts.claimed_ids() == broker.claimed_ids() == []
    pass_time(5 * SECOND - MS, broker, casts)
    assert casts.claimed_ids() == broker.claimed_ids() == []
    pass_time(MS, broker, casts)
    assert casts.claimed_ids() == broker.claimed_ids() == ["a"]


@back
def test_a_slot_of_a_group_is_free_when_the_lease_ends_of_a_queue_that_nobody_serves(
    broker: Broker, casts: Broker, back: int
) -> None:
    for each in (broker, casts):
        send(each, "a", needs="F llm Sllm,1", group=GROUP.prefix)
    assert casts.claimed_ids() == ["a"]
    assert broker.claimed_ids() == []
    pass_time(-back, broker, casts)
    assert broker.claimed_ids() == []
    for _ in range(2):
        pass_time(LEASE // 2 - MS, broker, casts)
        assert broker.claimed_ids() == []
    pass_time(2 * MS, broker, casts)
    assert broker.claimed_ids() == ["a"]
    assert told(casts) == (back / SECOND, 1)


@back
def test_queues_of_a_group_take_turns_and_wait_for_no_dead_one(broker: Broker, casts: Broker, back: int) -> None:
    for each in (broker, casts):
        send(each, *(f"{number} of {each.keys.queue}" for number in range(4)), needs=BOT, group=GROUP.prefix)
    for _ in range(2):
        broker.claim(), casts.claim()
        pass_time(100 * MS, broker, casts)
    pass_time(-back, broker, casts)
    # Nobody serves the other queue from now on: after the time that it counts as hungry, all is for this one.
    taken = 0
    for _ in range(30):
        pass_time(100 * MS, broker, casts)
        taken += len(broker.claimed_ids())
    assert taken >= 2
