"""The sandbox: an app on a Redis of its own for the time of a test, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from unittest.mock import ANY

import pytest

from redisq import RedisQ
from redisq.app.shared import SHARED, SharedTasks
from redisq.app.task import TaskDecorator, TaskTable
from redisq.errors import ArgumentsError, ConfigError
from redisq.testing import FakeServer, check_leaks, sandbox


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


@pytest.fixture
def app() -> RedisQ:
    """An app as a program has it: its Redis is not there."""
    app = RedisQ("bot", url="redis://nowhere.invalid")

    @app.task(queue="chat_api")
    async def answer(chat_id: int, text: str = "hi", *, loud: bool = False) -> str:
        return text

    @app.task
    def note(mood: Mood, words: tuple[str, ...] = (), **more: int) -> None: ...

    return app


def test_calls_wait_in_the_sandbox_and_the_app_is_left_as_it_was(app: RedisQ) -> None:
    server, connector = app.server, app.connector
    with sandbox(app) as box:
        app.tasks["answer"].delay(1)
        assert [call.task for call in box.enqueued()] == ["answer"]
        assert isinstance(app.server, FakeServer)
    assert app.server is server
    assert app.connector is connector


def test_the_app_is_left_as_it_was_also_when_the_test_fails(app: RedisQ) -> None:
    server = app.server
    with pytest.raises(ZeroDivisionError), sandbox(app, eager=True):
        raise ZeroDivisionError
    assert app.server is server
    assert "enqueue" not in vars(app)


def test_an_app_without_a_url_never_looks_for_one() -> None:
    app = RedisQ("bot")
    app.task(name="work")(lambda: None)
    with sandbox(app) as box:
        app.tasks["work"].delay()
        box.assert_enqueued("work", count=1)
    assert app._server is None


def test_each_sandbox_is_empty_at_first_also_one_inside_another(app: RedisQ) -> None:
    with sandbox(app) as outer:
        app.tasks["answer"].delay(1)
        with sandbox(app) as inner:
            assert inner.enqueued() == []
            app.tasks["answer"].delay_many([(2,), (3,)])
            inner.assert_enqueued("answer", count=2)
        outer.assert_enqueued("answer", count=1)


def test_two_apps_have_a_redis_each(app: RedisQ) -> None:
    other = RedisQ("other", url="redis://nowhere.invalid")
    other.task(name="work")(lambda: None)
    with sandbox(app) as box, sandbox(other) as other_box:
        app.tasks["answer"].delay(1)
        other.tasks["work"].delay()
        assert len(box.enqueued()) == len(other_box.enqueued()) == 1


def test_shared_tasks_go_through_the_app_of_the_sandbox(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARED, "tasks", TaskTable())
    shared = TaskDecorator(SHARED.tasks, SHARED.current)
    ran = []

    @shared
    def greet(name: str) -> None:
        ran.append(name)

    other = RedisQ("other", url="redis://nowhere.invalid")
    monkeypatch.setattr(SHARED, "_current", lambda: other)
    with sandbox(app) as box:
        greet.delay("you")
        box.assert_enqueued(greet, args=("you",), queue="bot")
        assert box.drain().done == 1
    assert ran == ["you"]
    assert SHARED.current() is other


def test_a_current_app_that_was_none_is_none_again(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = SharedTasks()
    monkeypatch.setattr("redisq.testing.swap.SHARED", fresh)
    with sandbox(app):
        assert fresh.current() is app
    with pytest.raises(ConfigError, match="no app yet"):
        fresh.current()


def test_async_code_calls_as_it_does_in_production(app: RedisQ) -> None:
    async def scenario() -> None:
        with sandbox(app) as box:
            job = await app.tasks["answer"].adelay(1)
            assert await job.aposition() == 1
            box.assert_enqueued("answer", count=1)

    asyncio.run(scenario())


def test_a_call_shows_what_was_sent(app: RedisQ) -> None:
    with sandbox(app) as box:
        job = app.tasks["answer"].options(countdown=60).delay(42, text="later")
        (call,) = box.enqueued()
        assert (call.id, call.task, call.queue, call.state, call.attempt) == (job.id, "answer", "chat_api", "delayed", 1)
        assert (call.args, call.kwargs) == ((42,), {"text": "later"})
        assert call.due == box.clock.now() + timedelta(seconds=60)
        due = f"{call.due:%Y-%m-%d %H:%M:%S}"
        assert str(call) == f"answer(42, text='later') on queue chat_api, delayed until {due}"


def test_arguments_are_shown_as_the_handler_gets_them(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["note"].delay(Mood.GOOD, ("a", "b"))
        (call,) = box.enqueued()
        assert call.args == (Mood.GOOD, ("a", "b"))


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"args": (42,)},
        {"args": (42, "hi")},
        {"kwargs": {"chat_id": 42}},
        {"kwargs": {"text": "hi"}},
        {"kwargs": {"loud": False}},
        {"args": (42,), "kwargs": {"text": ANY}},
        {"queue": "chat_api"},
        {"count": 1},
    ],
)
@pytest.mark.parametrize("sent", [((42,), {}), ((42, "hi"), {}), ((), {"text": "hi", "chat_id": 42})])
def test_a_call_is_found_by_its_parameters_however_they_were_passed(app: RedisQ, sent: Any, wanted: dict[str, Any]) -> None:
    args, kwargs = sent
    with sandbox(app) as box:
        job = app.tasks["answer"].delay(*args, **kwargs)
        assert [call.id for call in box.assert_enqueued(app.tasks["answer"], **wanted)] == [job.id]
        assert [call.id for call in box.assert_enqueued("answer", **wanted)] == [job.id]


@pytest.mark.parametrize(
    "wanted",
    [
        {"args": (43,)},
        {"args": (42, "hello")},
        {"kwargs": {"text": "hello"}},
        {"kwargs": {"loud": True}},
        {"queue": "bot"},
        {"args": (42,), "kwargs": {"text": None}},
    ],
)
def test_another_call_is_not_found(app: RedisQ, wanted: dict[str, Any]) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay(42)
        box.refute_enqueued("answer", **wanted)
        with pytest.raises(AssertionError, match=r"want a call answer\(.*found 0; there is:\n  answer\(42\) on queue chat_api"):
            box.assert_enqueued("answer", **wanted)


def test_refute_fails_when_there_is_such_a_call(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay(42)
        with pytest.raises(AssertionError, match=r"want 0 calls answer\(42, \.\.\.\) on queue chat_api, found 1"):
            box.refute_enqueued("answer", args=(42,), queue="chat_api")


def test_a_wrong_count_fails(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay_many([(number,) for number in range(25)])
        with pytest.raises(AssertionError, match=r"want 2 calls answer\(\.\.\.\), found 25") as caught:
            box.assert_enqueued("answer", count=2)
        assert "and 5 more" in str(caught.value)
        box.assert_enqueued("answer", count=25)


def test_an_expectation_that_no_call_could_meet_is_an_error(app: RedisQ) -> None:
    with sandbox(app) as box:
        with pytest.raises(ArgumentsError, match=r"no call of answer.* unexpected keyword argument 'chatid'"):
            box.refute_enqueued("answer", kwargs={"chatid": 42})
        with pytest.raises(ArgumentsError, match="too many positional arguments"):
            box.assert_enqueued("answer", args=(1, "a", True))


def test_values_are_compared_as_they_travel(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["note"].delay(Mood.BAD, ("a", "b"), extra=1)
        box.assert_enqueued("note", args=(Mood.BAD, ("a", "b")), kwargs={"extra": 1})
        box.assert_enqueued("note", args=("bad", ["a", "b"]))
        box.refute_enqueued("note", args=(Mood.GOOD,))


def test_calls_that_were_sent_by_name_are_found_without_their_task(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.send("elsewhere", (1, 2), {"three": 3}, queue="other")
        box.assert_enqueued("elsewhere", args=(1,), kwargs={"three": 3}, queue="other")
        box.refute_enqueued("elsewhere", args=(2,))
        app.send("answer", ("arguments", "that", "do not fit"))
        box.assert_enqueued("answer", count=1)
        box.refute_enqueued("answer", args=(42,))


def test_enqueued_and_dead_can_be_narrowed(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay(1)
        app.tasks["note"].delay(Mood.GOOD)
        app.tasks["note"].options(queue="chat_api").delay(Mood.BAD)
        assert len(box.enqueued()) == 3
        assert [call.queue for call in box.enqueued("note")] == ["bot", "chat_api"]
        assert [call.task for call in box.enqueued(queue="chat_api")] == ["answer", "note"]
        assert box.dead() == []


def test_more_calls_than_a_page_are_all_seen(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay_many([(number,) for number in range(1001)])
        assert [call.args[0] for call in box.enqueued()] == list(range(1001))


def test_queues_of_a_namespace_are_seen() -> None:
    app = RedisQ("bot", namespace="prod")
    app.task(name="work")(lambda: None)
    with sandbox(app) as box:
        app.tasks["work"].delay()
        box.assert_enqueued("work", queue="bot")
        assert box.client.zcard("prod:bot:queue:main") == 1


def test_the_clock_stands_still_and_moves_forward_only(app: RedisQ) -> None:
    with sandbox(app) as box:
        before = box.clock.now()
        assert abs(before - datetime.now(UTC)) < timedelta(minutes=5)
        assert box.clock.now() == before
        box.clock.advance(1.5)
        box.clock.advance(timedelta(hours=1))
        assert box.clock.now() == before + timedelta(hours=1, seconds=1.5)
        with pytest.raises(ConfigError, match="advance=-1"):
            box.clock.advance(-1)
        with pytest.raises(ConfigError, match="only moves forward"):
            box.clock.move_to(0)


def test_what_a_sandbox_holds_is_known_to_the_leak_check(app: RedisQ) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay(1)
        app.tasks["answer"].options(countdown=60).delay(2)
        box.drain()
        check_leaks(box.client)
        box.client.set("chat_api:forgotten", 1)
        box.client.set("chat_api:dies:anyhow", 1, ex=60)
        with pytest.raises(AssertionError, match=r"nobody will ever delete: chat_api:forgotten$"):
            check_leaks(box.client)
        check_leaks(box.client, ignore=("chat_api:for",))


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_without_fakeredis_the_error_says_what_to_install(app: RedisQ, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"{missing}.*pip install 'redisq-tasks\[test\]'"):
        FakeServer()
    with pytest.raises(ConfigError, match="pip install"), sandbox(app):
        pass
    assert not isinstance(app.server, FakeServer)


def test_an_app_can_be_made_on_a_fake_server() -> None:
    app = RedisQ("bot", server=FakeServer())
    app.task(name="work")(lambda: None)
    assert app.tasks["work"].delay().state() == "waiting"


@pytest.mark.parametrize(("jitter", "waits"), [(0.0, [8.0, 16.0]), (0.5, [6.0, 12.0]), (1.0, [4.0, 8.0])])
@pytest.mark.parametrize("eager", [False, True])
def test_jitter_of_retries_can_be_set(jitter: float, waits: list[float], eager: bool) -> None:
    app = RedisQ("jitter")

    @app.task(max_retries=2, retry_backoff=8)
    async def fails() -> None:
        raise ValueError("no")

    before = app.settings
    with sandbox(app, jitter=jitter, eager=eager, propagate=False) as box:
        fails.delay()
        if not eager:
            found = []
            for wait in waits:
                box.drain()
                (call,) = box.enqueued()
                assert call.due
                found.append((call.due - box.clock.now()).total_seconds())
                box.clock.advance(wait)
            assert found == waits
            box.drain()
        assert len(box.dead()) == 1
    assert app.settings is before


def test_jitter_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"jitter=1\.5: want 0 to 1"), sandbox(RedisQ("jitter"), jitter=1.5):
        pass
