"""Eager mode: a call runs where it is sent, with all that happens to a message."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from redisq import Job, RedisQ, Reject, Retry
from redisq.errors import ArgumentsError, EncodeError, JobFailed, NoResult, WrongArguments
from redisq.testing import sandbox

app = RedisQ("eager", url="redis://nowhere.invalid")
ran: list[object] = []


@dataclass
class Point:
    x: int
    y: int


@app.task(queue="chat_api", result_ttl=60)
async def answer(text: str) -> str:
    ran.append(text)
    return text.upper()


@app.task(result_ttl=60)
def answer_sync(text: str) -> str:
    ran.append(text)
    return text.upper()


@app.task(max_retries=2, result_ttl=60)
async def fail_twice(error: bool = True) -> str:
    ran.append("tried")
    if len(ran) < 3:
        raise Retry("not yet", countdown=3600)
    return "done"


@app.task(max_retries=2)
async def fail() -> None:
    ran.append("tried")
    raise ValueError(f"no, for the {len(ran)}. time")


@app.task(max_retries=2)
def fail_sync() -> None:
    ran.append("tried")
    raise ValueError(f"no, for the {len(ran)}. time")


@app.task
def refuse(number: int) -> None:
    ran.append(number)
    if number == 2:
        raise Reject("not two")


@app.task(ack="early")
async def at_most_once(fails: bool) -> None:
    ran.append("once")
    if fails:
        raise ValueError("once")


@app.task(result_ttl=60)
def move(point: Point, by: tuple[int, int]) -> Point:
    assert isinstance(by, tuple)
    return Point(point.x + by[0], point.y + by[1])


@app.task(result_ttl=60)
def returns_an_object() -> object:
    return object()


@app.task
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@app.task
def where() -> None:
    ran.append(threading.current_thread())


@app.task
async def where_async() -> None:
    ran.append(threading.current_thread())


@app.task
def starts_a_loop() -> None:
    asyncio.run(asyncio.sleep(0))
    ran.append("ran")


@app.task
async def outer() -> None:
    ran.append("outer begins")
    await answer.adelay("inner")
    answer_sync.delay("inner sync")
    ran.append("outer ends")


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def sync_call(task: str, *args: object) -> Job:
    return app.tasks[task].delay(*args)


def async_call(task: str, *args: object) -> Job:
    async def call() -> Job:
        return await app.tasks[task].adelay(*args)

    return asyncio.run(call())


def sync_call_in_a_loop(task: str, *args: object) -> Job:
    async def call() -> Job:
        return app.tasks[task].delay(*args)

    return asyncio.run(call())


every_caller = pytest.mark.parametrize("call", [sync_call, async_call, sync_call_in_a_loop])

Call = Callable[..., Job]


@every_caller
@pytest.mark.parametrize("task", ["answer", "answer_sync"])
def test_a_call_has_run_when_it_was_sent_and_its_result_is_kept(call: Call, task: str) -> None:
    with sandbox(app, eager=True) as box:
        job = call(task, "hi")
        assert ran == ["hi"]
        assert job.get(timeout=1) == "HI"
        assert job.state() == "done"
        assert box.enqueued() == []


@every_caller
def test_what_is_due_later_runs_at_once(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app._own, "later", app.tasks["answer"].options(countdown=3600, priority=9, expires=7200))
    with sandbox(app, eager=True):
        assert call("later", "hi").get(timeout=1) == "HI"


@every_caller
def test_retries_run_at_once(call: Call) -> None:
    with sandbox(app, eager=True) as box:
        assert call("fail_twice").get(timeout=1) == "done"
        assert ran == ["tried"] * 3
        assert box.client.hget("eager:stats", "retry_count") == b"2"


@every_caller
@pytest.mark.parametrize("task", ["fail", "fail_sync"])
def test_the_last_error_of_a_call_that_failed_for_good_is_raised(call: Call, task: str) -> None:
    with sandbox(app, eager=True) as box:
        with pytest.raises(ValueError, match=r"no, for the 3\. time"):
            call(task)
        assert [(letter.task, letter.reason, letter.attempt) for letter in box.dead()] == [(task, "exhausted", 3)]


@every_caller
def test_or_is_a_dead_letter_only_as_in_production(call: Call) -> None:
    with sandbox(app, eager=True, propagate=False) as box:
        job = call("fail")
        with pytest.raises(JobFailed, match=r"no, for the 3\. time"):
            job.get(timeout=1)
        assert len(box.dead(fail)) == 1


@every_caller
def test_arguments_and_results_travel(call: Call) -> None:
    with sandbox(app, eager=True):
        assert call("move", Point(1, 2), (3, 4)).get(timeout=1) == Point(4, 6)


@every_caller
def test_what_cannot_travel_fails(call: Call) -> None:
    with sandbox(app, eager=True):
        with pytest.raises(EncodeError, match="argument text of type object"):
            call("answer", object())
        with pytest.raises(ArgumentsError):
            call("answer", "too", "many")
    assert ran == []


@every_caller
@pytest.mark.parametrize("fails", [False, True])
def test_at_most_once_is_once(call: Call, fails: bool) -> None:
    with sandbox(app, eager=True) as box:
        with pytest.raises(ValueError, match="once") if fails else nullcontext():
            call("at_most_once", fails)
        assert ran == ["once"]
        assert box.enqueued() == box.dead() == []


@every_caller
def test_a_call_may_send_others(call: Call) -> None:
    with sandbox(app, eager=True):
        call("outer")
    assert ran == ["outer begins", "inner", "inner sync", "outer ends"]


@every_caller
def test_a_plain_function_may_start_a_loop(call: Call) -> None:
    with sandbox(app, eager=True):
        call("starts_a_loop")
    assert ran == ["ran"]


@every_caller
def test_a_result_that_cannot_travel_fails(call: Call) -> None:
    with sandbox(app, eager=True), pytest.raises(EncodeError, match="type object: object cannot travel"):
        call("returns_an_object")


def test_arguments_that_were_sent_by_name_and_do_not_fit_are_put_aside_as_in_a_worker() -> None:
    with sandbox(app, eager=True) as box:
        with pytest.raises(WrongArguments, match="missing a required argument"):
            app.send("move", ("too few",))
        with pytest.raises(WrongArguments, match="argument point"):
            app.send("move", ("not a point", (1, 2)))
        assert [call.reason for call in box.enqueued()] == ["wrong_arguments"] * 2
        assert {call.attempt for call in box.enqueued()} == {1}
        assert not box.dead()


@every_caller
def test_a_call_cancelled_by_itself_has_failed(call: Call) -> None:
    with sandbox(app, eager=True) as box:
        with pytest.raises(asyncio.CancelledError):
            call("cancels_itself")
        assert [letter.attempt for letter in box.dead()] == [4]


def test_a_call_runs_in_the_thread_of_its_caller() -> None:
    with sandbox(app, eager=True):
        sync_call("where")
        sync_call("where_async")
        async_call("where_async")
    assert ran == [threading.main_thread()] * 3


def test_of_many_calls_all_run_and_the_first_error_is_raised() -> None:
    with sandbox(app, eager=True) as box:
        with pytest.raises(Reject, match="not two"):
            refuse.delay_many([(1,), (2,), (3,)])
        assert ran == [1, 2, 3]
        assert [letter.args for letter in box.dead()] == [(2,)]


def test_more_calls_than_a_batch_all_run() -> None:
    with sandbox(app, eager=True):
        assert len(refuse.delay_many([(number + 3,) for number in range(1001)])) == 1001
    assert len(ran) == 1001


def test_a_call_that_has_expired_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox(app, eager=True) as box:
        box.client.hset("chat_api:config", "paused", "1")
        job = answer.options(expires=60).delay("late")
        assert ran == []
        box.assert_enqueued(answer, count=1)
        box.client.hdel("chat_api:config", "paused")
        box.clock.advance(61)
        answer.delay("in time")
        assert ran == ["in time"]
        with pytest.raises(NoResult):
            job.get(timeout=1)


def test_what_waited_before_is_not_run_by_another_call() -> None:
    with sandbox(app, eager=True) as box:
        box.client.hset("chat_api:config", "paused", "1")
        answer.delay("waits")
        box.client.hdel("chat_api:config", "paused")
        answer.delay("runs")
        assert ran == ["runs"]
        box.assert_enqueued(answer, args=("waits",), count=1)
        assert box.drain().done == 1


def test_a_call_for_another_program_waits_for_it() -> None:
    with sandbox(app, eager=True) as box:
        app.send("elsewhere", (1,), queue="other")
        box.assert_enqueued("elsewhere", args=(1,), queue="other")
        with pytest.raises(AssertionError, match=r"\(eager: calls run where they are sent\)"):
            box.assert_enqueued(answer)


def test_threads_run_each_its_own_calls() -> None:
    jobs: dict[str, Job] = {}

    def send(name: str) -> None:
        for number in range(10):
            jobs[f"{name}{number}"] = answer_sync.delay(f"{name}{number}")

    with sandbox(app, eager=True):
        threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {name: job.get(timeout=1) for name, job in jobs.items()} == {name: name.upper() for name in jobs}
    assert sorted(map(str, ran)) == sorted(jobs)


def test_a_caller_that_gives_up_cancels_the_call() -> None:
    other = RedisQ("other", url="redis://nowhere.invalid")

    async def scenario() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        @other.task
        async def hang() -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        call = asyncio.ensure_future(hang.adelay())
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled.wait()

    with sandbox(other, eager=True) as box:
        asyncio.run(scenario())
        box.assert_enqueued("hang", count=1)
