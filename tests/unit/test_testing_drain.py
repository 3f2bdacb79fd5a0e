"""Draining a sandbox: the real worker, in this process, with a clock to move."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from redisq import RedisQ, Reject, Retry
from redisq.states import State
from redisq.testing import Drained, drain, sandbox

app = RedisQ("drained", url="redis://nowhere.invalid")
ran: list[str] = []


@app.task(queue="chat_api", result_ttl=60)
async def answer(text: str) -> str:
    ran.append(text)
    return text.upper()


@app.task
def answer_sync(text: str) -> None:
    ran.append(text)


@app.task(max_retries=2)
async def fail() -> None:
    ran.append("failed")
    raise ValueError("no")


@app.task
async def refuse() -> None:
    raise Reject("never")


@app.task
async def relay(text: str, queue: str) -> None:
    await answer.options(queue=queue).adelay(text)
    answer_sync.options(countdown=3600).delay(f"{text}, later")


@app.task
def again() -> None:
    ran.append("again")
    again.options(countdown=60).delay()


@app.task
async def wait_an_hour() -> None:
    ran.append("tried")
    if len(ran) == 1:
        raise Retry("not yet", countdown=timedelta(hours=1))


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def test_all_that_waits_is_run_by_sync_code() -> None:
    with sandbox(app) as box:
        job = answer.delay("a")
        answer_sync.delay("b")
        assert box.drain() == Drained(done=2)
        assert sorted(ran) == ["a", "b"]
        assert job.get(timeout=1) == "A"
        assert box.enqueued() == []


def test_all_that_waits_is_run_in_the_running_loop() -> None:
    async def scenario() -> None:
        with sandbox(app) as box:
            job = await answer.adelay("a")
            assert await box.adrain() == Drained(done=1)
            assert await job.aget(timeout=1) == "A"
            with pytest.raises(RuntimeError, match=r"await box\.adrain\(\)"):
                box.drain()

    asyncio.run(scenario())


def test_an_empty_sandbox_is_drained_at_once() -> None:
    with sandbox(app) as box:
        assert box.drain(delayed=True) == Drained()


def test_what_is_due_later_waits_for_the_clock() -> None:
    with sandbox(app) as box:
        answer.options(countdown=60).delay("later")
        assert box.drain() == Drained()
        box.clock.advance(59)
        assert box.drain() == Drained()
        box.clock.advance(1)
        assert box.drain() == Drained(done=1)


def test_delayed_calls_are_run_each_at_its_time() -> None:
    with sandbox(app) as box:
        begin = box.clock.now()
        answer.options(countdown=7200).delay("second")
        answer.options(countdown=3600).delay("first")
        assert box.drain(delayed=True) == Drained(done=2)
        assert ran == ["first", "second"]
        assert box.clock.now() - begin == timedelta(seconds=7200)


def test_a_failing_call_is_retried_and_ends_as_a_dead_letter() -> None:
    with sandbox(app) as box:
        fail.delay()
        assert box.drain() == Drained(retried=1)
        (call,) = box.enqueued()
        assert (call.state, call.attempt, call.reason, call.error) == (State.RETRY, 2, "failed", "ValueError: no")
        assert str(call).endswith("(failed: ValueError: no)")
        assert box.drain(delayed=True) == Drained(retried=1, dead=1)
        assert ran == ["failed"] * 3
        assert box.enqueued() == []
        (letter,) = box.dead(fail)
        assert (letter.state, letter.reason, letter.error, letter.due) == (State.DEAD, "exhausted", "ValueError: no", None)


def test_a_rejected_call_is_a_dead_letter_at_once() -> None:
    with sandbox(app) as box:
        refuse.delay()
        assert box.drain() == Drained(dead=1)
        assert [(letter.task, letter.reason) for letter in box.dead()] == [("refuse", "rejected")]


def test_a_retry_says_when() -> None:
    with sandbox(app) as box:
        wait_an_hour.delay()
        box.drain()
        (call,) = box.assert_enqueued(wait_an_hour)
        assert call.due == box.clock.now() + timedelta(hours=1)
        assert box.drain(delayed=True) == Drained(done=1)


def test_what_a_call_sends_is_run_too_wherever_it_goes() -> None:
    with sandbox(app) as box:
        relay.delay("a", "nobody_serves_it_yet")
        assert box.drain() == Drained(done=2)
        box.assert_enqueued(answer_sync, args=("a, later",))
        assert box.drain(delayed=True) == Drained(done=1)
        assert ran == ["a", "a, later"]


def test_one_queue_is_drained_alone() -> None:
    with sandbox(app) as box:
        answer.delay("a")
        answer_sync.delay("b")
        assert box.drain(queue="chat_api") == Drained(done=1)
        box.assert_enqueued(answer_sync, count=1)


def test_calls_for_another_program_are_left_alone() -> None:
    with sandbox(app) as box:
        app.send("elsewhere", (1,), queue="other")
        assert box.drain(delayed=True) == Drained()
        box.assert_enqueued("elsewhere", args=(1,), count=1)


def test_a_paused_queue_does_not_keep_it_busy() -> None:
    with sandbox(app) as box:
        answer.options(countdown=60).delay("never")
        box.client.hset("chat_api:config", "paused", "1")
        assert box.drain(delayed=True) == Drained()
        assert [call.state for call in box.enqueued()] == [State.WAITING]


def test_a_task_that_sends_itself_again_is_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MAX_MOVES", 5)
    with sandbox(app) as box:
        again.delay()
        with pytest.raises(RuntimeError, match=r"moved the clock 5 times.*does a task send itself again\?"):
            box.drain(delayed=True)
        assert len(ran) == 6


def test_the_loop_of_the_thread_stays_what_it_was() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with sandbox(app) as box:
            answer.delay("a")
            box.drain()
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
