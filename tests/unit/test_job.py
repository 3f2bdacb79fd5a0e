"""The job, and the options of a task that decide what becomes of it. The worker runs in this process, on fakeredis."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

from redisq import Job, RedisQ, Reject, Retry, Worker, task
from redisq.app.shared import SHARED, SharedTasks
from redisq.app.task import TaskTable
from redisq.broker import commands
from redisq.errors import ArgumentsError, ConfigError, EncodeError, JobFailed, JobTimeout, NoResult
from redisq.states import State
from redisq.testing import FakeServer


class Mood(Enum):
    GOOD = "good"


@dataclass
class Question:
    text: str
    mood: Mood = Mood.GOOD


@pytest.fixture
def app() -> RedisQ:
    return RedisQ("bot", server=FakeServer())


def work_off(app: RedisQ) -> None:
    """Run what waits, in a burst."""

    async def burst() -> None:
        await Worker(app, burst=True).run()
        await app.aclose()

    asyncio.run(burst())


def dead_reason(app: RedisQ, job: Job) -> str:
    found = app.connector.execute(commands.find(app.keys(job.queue), job.id))
    assert found
    assert found.state == "dead"
    return found.meta.reason


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_kept_result_comes_back_as_the_handler_returned_it(app: RedisQ, kind: str) -> None:
    if kind == "async":

        @app.task(result_ttl=60)
        async def ask(question: Question) -> Question:
            return question
    else:

        @app.task(result_ttl=60)
        def ask(question: Question) -> Question:
            return question

    job = ask.delay(Question("why?"))
    assert job.state() is State.WAITING
    assert job.position() == 1
    with pytest.raises(JobTimeout, match="not done after 0 s"):
        job.get(timeout=0)
    work_off(app)
    assert job.state() is State.DONE
    assert job.position() is None
    assert job.get(timeout=5) == Question("why?")


def test_a_result_is_waited_for_from_async_code(app: RedisQ) -> None:
    @app.task(result_ttl=60)
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> list[Any]:
        async with Worker(app):
            jobs = await double.adelay_many([(number,) for number in range(20)])
            results = await asyncio.gather(*(job.aget(timeout=10) for job in jobs))
        await app.aclose()
        return list(results)

    assert asyncio.run(main()) == [2 * number for number in range(20)]


def test_a_dead_job_says_why_when_it_is_waited_for(app: RedisQ) -> None:
    @app.task(max_retries=0, result_ttl=60)
    async def fail() -> None:
        raise ValueError("no such chat")

    job = fail.delay()
    work_off(app)
    with pytest.raises(JobFailed, match=r"dead letter \(exhausted\): ValueError: no such chat") as caught:
        job.get(timeout=5)
    assert (caught.value.reason, caught.value.text) == ("exhausted", "ValueError: no such chat")


def test_a_task_that_keeps_no_result_says_so_when_it_is_waited_for(app: RedisQ) -> None:
    @app.task
    async def forgets() -> int:
        return 1

    job = forgets.delay()
    work_off(app)
    assert job.state() is State.GONE
    with pytest.raises(NoResult, match="result_ttl="):
        job.get(timeout=5)


def test_a_result_that_cannot_travel_does_not_undo_the_work(app: RedisQ, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(result_ttl=60)
    async def odd() -> object:
        return object()

    job = odd.delay()
    work_off(app)
    assert job.state() is State.GONE
    assert "is done, its result is not kept" in caplog.text


def test_a_waiting_job_is_cancelled_and_a_finished_one_is_not(app: RedisQ) -> None:
    @app.task
    async def never() -> None: ...

    waiting, delayed = never.delay(), never.options(countdown=60).delay()
    assert waiting.cancel()
    assert asyncio.run(cancelled(app, delayed))
    assert not waiting.cancel()
    assert waiting.state() is delayed.state() is State.GONE
    view = app.connector.execute(commands.inspect(app.keys("bot")))
    assert (view.stats["cancelled"], view.waiting, view.delayed) == (2, 0, 0)


async def cancelled(app: RedisQ, job: Job) -> bool:
    state, position = await job.astate(), await job.aposition()
    done = await job.acancel()
    await app.aclose()
    return done and state is State.DELAYED and position is None


def test_a_job_of_another_process_is_found_by_its_id(app: RedisQ) -> None:
    @app.task(queue="chat_api")
    async def never() -> None: ...

    job = app.job(never.delay().id, queue="chat_api")
    assert job.state() is State.WAITING
    with pytest.raises(ConfigError, match="job 'a b'"):
        app.job("a b")


@pytest.mark.parametrize("expires", [0.000001, datetime(2020, 1, 1, tzinfo=UTC)])
def test_an_expired_call_is_dropped_and_counted(app: RedisQ, expires: Any) -> None:
    ran = []

    @app.task
    async def late() -> None:
        ran.append(1)

    job = late.options(expires=expires).delay()
    kept = late.options(expires=60).delay()
    work_off(app)
    assert ran == [1]
    assert job.state() is kept.state() is State.GONE
    assert app.connector.execute(commands.inspect(app.keys("bot"))).stats["expired"] == 1


def test_a_task_may_expire_by_itself(app: RedisQ) -> None:
    @app.task(expires=0.000001)
    async def late() -> None: ...

    late.delay()
    work_off(app)
    assert app.connector.execute(commands.inspect(app.keys("bot"))).stats["expired"] == 1


@pytest.mark.parametrize(
    ("options", "error", "ends"),
    [
        ({}, ValueError("x"), "retry"),
        ({"autoretry_for": (OSError,)}, TimeoutError("x"), "retry"),
        ({"autoretry_for": (OSError,)}, ValueError("x"), "not_retried"),
        ({"dont_retry_for": (ValueError,)}, ValueError("x"), "not_retried"),
        ({"dont_retry_for": (ValueError,)}, KeyError("x"), "retry"),
        ({"autoretry_for": (OSError,)}, Retry("again"), "retry"),
        ({}, Reject("never"), "rejected"),
        ({"max_retries": 0}, Retry("again"), "exhausted"),
        ({"max_retries": 0}, Reject("never"), "rejected"),
    ],
)
def test_which_errors_are_tried_again(app: RedisQ, options: dict[str, Any], error: Exception, ends: str) -> None:
    @app.task(**options)
    async def fail() -> None:
        raise error

    job = fail.delay()
    work_off(app)
    if ends == "retry":
        assert job.state() is State.RETRY
    else:
        assert dead_reason(app, job) == ends


def test_retry_says_when(app: RedisQ) -> None:
    @app.task(retry_backoff=1000)
    async def fail() -> None:
        raise Retry("soon", countdown=60)

    job = fail.delay()
    before = datetime.now(UTC).timestamp()
    work_off(app)
    found = app.connector.execute(commands.find(app.keys("bot"), job.id))
    assert found
    assert 59 < found.score / 1_000_000 - before < 70
    assert found.meta.text == "Retry: soon"
    with pytest.raises(ConfigError, match="countdown=-1"):
        Retry(countdown=-1)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_acknowledged_early_a_call_runs_at_most_once(app: RedisQ, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    states = []

    def run() -> None:
        states.append(app.connector.execute(commands.inspect(app.keys("bot"))).processing)
        raise ValueError("too late")

    if kind == "async":

        @app.task(ack="early")
        async def once() -> None:
            run()
    else:
        once = app.task(ack="early", name="once")(run)  # type: ignore[assignment]

    once.delay()
    work_off(app)
    assert states == [0], "Redis had taken the ack before the handler started"
    view = app.connector.execute(commands.inspect(app.keys("bot")))
    assert (view.retry, view.dead, view.stats["processed_requests"]) == (0, 0, 1)
    assert "failed, at most once" in caplog.text


def test_only_an_explicit_act_moves_shared_tasks(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARED, "_current", lambda: None)
    monkeypatch.setattr(SHARED, "_apps", [])
    first = RedisQ("first", url="redis://nowhere.invalid")
    assert SHARED.current() is first
    second = RedisQ("second", url="redis://nowhere.invalid")
    elsewhere = first.at(namespace="elsewhere")
    assert SHARED.current() is first
    elsewhere.set_current()
    assert SHARED.current() is elsewhere
    second.set_current()
    assert SHARED.current() is second


def test_shared_tasks_go_on_when_the_app_that_was_made_first_is_gone() -> None:
    shared = SharedTasks()

    class App:
        """What can be held weakly."""

    first, second, third = App(), App(), App()
    for app in (first, second, third):
        shared.offer(app)
    assert shared.current() is first
    del first, app
    gc.collect()
    assert shared.current() is second
    # Named by its program, it is not replaced in silence.
    shared.set_current(third)
    del third, second
    gc.collect()
    assert isinstance(shared.current(), App)


def test_a_shared_task_goes_through_the_current_app(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARED, "tasks", TaskTable())
    monkeypatch.setattr(SHARED, "_current", lambda: app)
    decorate = type(task)(SHARED.tasks, SHARED.current)

    @decorate(result_ttl=60)
    async def anywhere(number: int) -> int:
        return number + 1

    job = anywhere.delay(1)
    assert job.queue == "bot"
    work_off(app)
    assert job.get(timeout=5) == 2


def test_a_shared_task_without_any_app_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARED, "_current", lambda: None)
    monkeypatch.setattr(SHARED, "_apps", [])
    with pytest.raises(ConfigError, match="no app yet"):
        SHARED.current()


def test_a_call_by_name_needs_no_code(app: RedisQ) -> None:
    other = RedisQ("front", server=app.server)
    seen = []

    @app.task(queue="bot")
    async def answer(chat_id: int, text: str, question: Question | None = None) -> None:
        seen.append((chat_id, text, question))

    other.send("answer", (1, "a"), queue="bot")
    asyncio.run(by_name(other))
    other.send("answer", (3,), {"text": "c", "question": {"text": "d", "mood": "good"}}, queue="bot", priority=3)
    work_off(app)
    assert sorted(seen, key=lambda call: call[0]) == [(1, "a", None), (2, "b", None), (3, "c", Question("d"))]
    with pytest.raises(
        EncodeError,
        match=r"argument 0 of type Mood would arrive as str, since the handler's annotations are not here",
    ):
        other.send("answer", (Mood.GOOD,))
    with pytest.raises(ConfigError, match="countdwn"):
        other.send("answer", (), countdwn=3)


async def by_name(app: RedisQ) -> None:
    await app.asend("answer", (2, "b"), queue="bot")
    await app.aclose()


def test_apply_async_is_spelt_as_celery_has_it(app: RedisQ) -> None:
    @app.task
    async def answer(chat_id: int, text: str = "") -> None: ...

    assert answer.apply_async((1,), {"text": "a"}, countdown=60).state() is State.DELAYED

    async def main() -> State:
        state = await (await answer.aapply_async((1,), priority=3, queue="other")).astate()
        await app.aclose()
        return state

    assert asyncio.run(main()) is State.WAITING


def test_arguments_are_checked_where_the_call_is_made(app: RedisQ) -> None:
    @app.task
    async def answer(chat_id: int, text: str, *, loud: bool = False) -> None: ...

    for bad in ((), (1,), (1, "a", True), (1, "a", 3, 4)):
        with pytest.raises(ArgumentsError, match=r"task answer\(chat_id: "):
            answer.delay(*bad)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lud'"):
        answer.delay(1, "a", lud=True)  # type: ignore[call-arg]
    with pytest.raises(ArgumentsError):
        answer.delay_many([(1, "a"), (1,)])
    assert app.connector.execute(commands.inspect(app.keys("bot"))).waiting == 0


def test_an_enum_that_no_annotation_brings_back_is_refused_where_it_is_sent(app: RedisQ) -> None:
    @app.task
    async def plain(mood, moods: list) -> None: ...  # type: ignore[no-untyped-def, type-arg]

    @app.task
    async def fits(mood: Mood, pair: tuple[int, Question]) -> None: ...

    with pytest.raises(EncodeError, match="argument mood of type Mood would arrive as str: annotate the parameter mood with Mood"):
        plain.delay(Mood.GOOD, [])
    with pytest.raises(EncodeError, match="argument moods of type Mood would arrive as str"):
        plain.delay("good", [Mood.GOOD])
    fits.delay(Mood.GOOD, (1, Question("a")))


def test_a_message_that_does_not_fit_the_code_is_kept(app: RedisQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    @app.task(max_retries=0)
    async def answer(question: Question) -> None: ...

    for job in (app.send("answer", ("not a question",)), app.send("answer", ())):
        work_off(app)
        found = app.connector.execute(commands.find(app.keys(job.queue), job.id))
        assert found
        assert (found.state, found.meta.reason, found.meta.attempt) == ("retry", "wrong_arguments", 1)
