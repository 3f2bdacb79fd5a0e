"""Lanes, limits, refusals and dedupe keys, with several real worker processes on a real server."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from redisq import RedisQ
from redisq.app.limits import LimitState
from redisq.states import State
from tests.integration import gated
from tests.integration.chat_platform import ChatPlatform, Rules, running
from tests.integration.operator import Operator
from tests.integration.processes import WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]

#: The platform forgives so many microseconds; a chat's messages are 500,000 apart.
SLACK = 150_000


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = gated.app.at(url=redis_url)
    yield app
    app.close()


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, app="tests.integration.gated:app")


def stats(raw: redis.Redis, queue: str) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in raw.hgetall(f"{queue}:stats").items()}


def done(raw: redis.Redis, queue: str, count: int) -> Callable[[], bool]:
    return lambda: stats(raw, queue).get("processed_requests") == count


def test_a_lane_is_in_order_over_all_processes(
    app: RedisQ, start: Start, raw: redis.Redis, lines: Callable[[], list[list[str]]]
) -> None:
    lanes, each = 12, 12
    workers = [start("-Q", "lanes", "-c", "20").ready() for _ in range(3)]
    task = app.tasks["in_order"]
    for number in range(each):
        task.delay_many([(chat, number, 2 if (chat + number) % 7 == 0 else 0) for chat in range(lanes)])
    wait_until(done(raw, "lanes", lanes * each), "all are done", 30)
    per_lane: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    processes = set()
    for kind, what, process, _ in lines():
        chat, _, number = what.partition(":")
        per_lane[chat].append((kind, int(number)))
        processes.add(process)
    assert len(processes) == len(workers)
    for events in per_lane.values():
        starts, ends = events[::2], events[1::2]
        assert [kind for kind, _ in starts] == ["S"] * len(starts)
        assert [number for _, number in starts] == [number for _, number in ends] == sorted(number for _, number in ends)
    assert raw.keys("lanes:flow:*") == raw.keys("lanes:lanes") == raw.keys("lanes:needs") == []


def test_limits_hold_over_all_processes(app: RedisQ, start: Start, raw: redis.Redis) -> None:
    # Limits count when a message is leased; on a busy machine it is sent that much later.
    platform = ChatPlatform(Rules.scaled(gated.FACTOR), slack=SLACK)
    numbers = dict.fromkeys(range(1, 31), 4) | dict.fromkeys(range(-10, 0), 2)
    calls = [(chat, min(chat, 0) or None, str(number)) for number in range(4) for chat, count in numbers.items() if number < count]
    with running(platform) as url:
        for _ in range(3):
            start("-Q", "platform", CHAT_PLATFORM=url).ready()
        app.tasks["send"].delay_many(calls)
        wait_until(done(raw, "platform", len(calls)), "all are sent", 40)
    assert (platform.floods, platform.ignored) == ({}, {})
    sent: defaultdict[int, list[str]] = defaultdict(list)
    for message in platform.accepted:
        sent[message.chat_id].append(message.text)
    assert sent == {chat: [str(number) for number in range(count)] for chat, count in numbers.items()}
    assert "limited" not in stats(raw, "platform")


def test_a_refusal_pauses_the_chat_for_all_processes_and_no_other_chat(app: RedisQ, start: Start, raw: redis.Redis) -> None:
    refusals = [4_000_000]
    platform = ChatPlatform(
        Rules.scaled(gated.FACTOR), slack=400_000, inject=lambda chat: refusals.pop() if chat == 7 and refusals else 0
    )
    with running(platform) as url:
        workers = [start("-Q", "platform", CHAT_PLATFORM=url).ready() for _ in range(2)]
        app.tasks["send"].delay_many([(chat, None, str(number)) for number in range(2) for chat in (7, 8, 9)])
        wait_until(lambda: "chat:7" in {state.name for state in app.control.limits("platform") if state.paused_for}, "it is paused")
        wait_until(done(raw, "platform", 4), "the other chats go on", 3.8)
        wait_until(done(raw, "platform", 6), "it goes on")
    assert (platform.injected, platform.floods, platform.ignored) == (1, {}, {})
    assert [message.text for message in platform.accepted if message.chat_id == 7] == ["0", "1"]
    assert stats(raw, "platform")["limited"] == 1
    assert "retry_count" not in stats(raw, "platform")
    said = "".join(worker.text() for worker in workers)
    assert said.count("was refused, no attempt is spent, chat:7 pauses for 4.0 s: ClientResponseError: ") == 1


def test_slots_are_of_the_running_only(app: RedisQ, start: Start, raw: redis.Redis, lines: Callable[[], list[list[str]]]) -> None:
    for _ in range(2):
        start("-Q", "slots").ready()
    app.tasks["ask"].delay_many([(number,) for number in range(60)])
    wait_until(done(raw, "slots", 60), "all are done")
    at_once = most = 0
    for kind, *_ in lines():
        at_once += 1 if kind == "S" else -1
        most = max(most, at_once)
    assert most == 3
    assert raw.keys("slots:slots") == []


@pytest.mark.parametrize("pool", ["in_the_loop", "in_a_thread", "in_a_process", "in_a_process_async", "quarantine"])
def test_a_refusal_spends_no_attempt_in_any_pool(
    pool: str, app: RedisQ, start: Start, raw: redis.Redis, lines: Callable[[], list[list[str]]]
) -> None:
    job = app.tasks["in_the_loop" if pool == "quarantine" else pool].delay()
    if pool == "quarantine":
        raw.hset("refused:meta", job.id, "crashes=2")
    worker = start("-Q", "refused").ready()
    wait_until(done(raw, "refused", 1), "it is done")
    (first, _, process, began), (_, _, _, again), (last, what, _, _) = lines()
    assert (first, last, what) == ("S", "E", f"{job.id}:1")
    assert 0.3 <= float(again) - float(began) < 5
    assert (process == str(worker.process.pid)) == (pool in ("in_the_loop", "in_a_thread"))
    assert stats(raw, "refused")["limited"] == 1
    assert f"[{job.id}] was refused, no attempt is spent, bot pauses for 0.3 s: RateLimited: rate limited" in worker.text()


def test_one_job_for_all_calls_with_a_key(
    app: RedisQ, start: Start, raw: redis.Redis, lines: Callable[[], list[list[str]]]
) -> None:
    once = app.tasks["once"]
    first = once.delay(1, "a")
    assert once.delay(1, "b") == first
    replacing = once.options(dedupe="replace")
    assert replacing.delay(1, "c") == first
    later = once.options(dedupe="extend", countdown=0.2)
    assert later.delay(2, "x") == later.delay(2, "y")
    start("-Q", "door").ready()
    wait_until(done(raw, "door", 2), "both are done")
    assert [what for kind, what, *_ in lines() if kind == "E"] == ["1:c", "2:y"]
    assert raw.keys("door:dedupe:*") == []
    assert once.delay(1, "d") != first
    wait_until(done(raw, "door", 3), "a new one, for the first is done")
    kept = once.options(dedupe_ttl=60)
    second = kept.delay(3, "x")
    wait_until(done(raw, "door", 4), "it is done")
    assert kept.delay(3, "y") == second
    assert second.state() == State.GONE


def test_an_operator_pauses_and_resumes_while_workers_run(
    app: RedisQ, start: Start, operator: Operator, raw: redis.Redis, lines: Callable[[], list[list[str]]]
) -> None:
    operator.run("limits", "pause", "llm", "-A", "tests.integration.gated:app")
    app.control.pause("lanes", lane=1)
    start("-Q", "slots,lanes", "-c", "10").ready()
    app.tasks["ask"].delay_many([(number,) for number in range(5)])
    app.tasks["in_order"].delay_many([(chat, number) for number in range(3) for chat in (1, 2)])
    wait_until(done(raw, "lanes", 3), "the other lane goes on")
    assert {what.partition(":")[0] for _, what, *_ in lines()} == {"2"}
    assert {state.name: state.waiting for state in app.control.limits("slots")} == {"llm": 5}
    app.control.resume("lanes", lane=1)
    wait_until(done(raw, "lanes", 6), "the lane goes on", 5)
    began = time.monotonic()
    operator.run("limits", "resume", "llm", "-A", "tests.integration.gated:app")
    wait_until(done(raw, "slots", 5), "the limit goes on", 5)
    assert time.monotonic() - began < 3


def test_a_rule_is_changed_while_workers_run(app: RedisQ, start: Start, operator: Operator, raw: redis.Redis) -> None:
    start("-Q", "slots").ready()
    wait_until(lambda: app.control.limits("slots") == [LimitState("llm", "3 at once", free=3)], "the worker told its rules")
    app.control.set_limit("slots", "llm", "1/h")
    app.tasks["ask"].delay_many([(number,) for number in range(20)])
    app.control.clear_limit("slots", "llm")
    wait_until(done(raw, "slots", 20), "by the rule in the code again", 10)


def test_when_the_head_of_a_lane_dies_the_lane_goes_on_or_waits(
    app: RedisQ, start: Start, raw: redis.Redis, operator: Operator
) -> None:
    start("-Q", "lanes").ready()
    task = app.tasks["in_order"]
    goes_on = task.delay_many([(1, 0, 99), (1, 1)])
    held = task.options(on_dead="hold").delay_many([(2, 0, 99), (2, 1)])
    wait_until(lambda: goes_on[0].state() == held[0].state() == State.DEAD, "both heads are dead")
    wait_until(lambda: goes_on[1].state() == State.GONE, "one lane goes on")
    assert held[1].state() == State.WAITING
    operator.run("dead", "drop", held[0].id)
    wait_until(lambda: held[1].state() == State.GONE, "so does the other, when somebody has decided", 5)
