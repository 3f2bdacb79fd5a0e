"""What a platform's "too many requests" does to a message, its gate, its attempts and the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from redisq import RateLimited, RedisQ, Reject
from redisq.app.waiting import run
from redisq.broker.commands import inspect
from redisq.broker.gates import read_limits
from redisq.middleware import End, Middleware
from redisq.testing import Sandbox, sandbox
from redisq.worker.refusals import MAX_REFUSALS


class Answer(Exception):
    """As HTTP clients have it."""

    status_code = 429

    def __init__(self, **headers: str) -> None:
        super().__init__("429 Too Many Requests")
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Told(Middleware):
    def __init__(self) -> None:
        self.ends: list[tuple[str, End]] = []

    def settle(self, end: End) -> None:
        self.ends.append(("settle", end))

    def retry(self, end: End) -> None:
        self.ends.append(("retry", end))

    def limited(self, end: End) -> None:
        self.ends.append(("limited", end))


class Platform:
    """Refuses as often as a test says."""

    def __init__(self) -> None:
        self.refusals: list[BaseException] = []
        self.sent: list[int] = []

    def send(self, chat_id: int) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.sent.append(chat_id)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def app(told: Told, platform: Platform) -> RedisQ:
    app = RedisQ("bot", middleware=[told])

    @app.task(key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}:1/s"], max_retries=0)
    async def answer(chat_id: int) -> None:
        platform.send(chat_id)

    @app.task(key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}:1/s"], max_retries=0)
    def answer_in_a_thread(chat_id: int) -> None:
        platform.send(chat_id)

    @app.task(max_retries=0)
    async def plain(chat_id: int) -> None:
        platform.send(chat_id)

    return app


@pytest.fixture
def box(app: RedisQ) -> Iterator[Sandbox]:
    with sandbox(app) as box:
        yield box


def paused(app: RedisQ) -> dict[str, Any]:
    views = run(read_limits(app.keys("bot")), app.connector)
    # The sandbox's clock stands still, the server's does not.
    return {view.name: pytest.approx(view.paused_for, abs=2) for view in views if view.paused_for}


@pytest.mark.parametrize("name", ["answer", "answer_in_a_thread"])
def test_the_gate_pauses_and_no_attempt_is_spent(
    name: str, app: RedisQ, box: Sandbox, platform: Platform, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    platform.refusals = [RateLimited(7)]
    app.tasks[name].delay(42)
    assert box.drain() == (0, 1, 0)
    (call,) = box.enqueued()
    assert (call.state, call.attempt, call.reason) == ("retry", 1, "limited")
    assert call.due is not None
    assert timedelta(seconds=7) <= call.due - box.clock.now() <= timedelta(seconds=7.7)
    assert paused(app) == {"chat:42": 7}
    view = app.connector.execute(inspect(app.keys("bot")))
    assert (view.processing, view.stats["limited"]) == (0, 1)
    assert f"Task {name}[{call.id}] was refused, no attempt is spent, chat:42 pauses for 7.0 s: RateLimited: rate" in caplog.text
    assert [(hook, end.op, end.attempt, end.reason, end.gate) for hook, end in told.ends] == [
        ("settle", "limited", 1, "limited", "chat:42"), ("limited", "limited", 1, "limited", "chat:42"),
    ]  # fmt: skip
    assert 7 <= told.ends[0][1].delay <= 7.7
    assert told.ends[0][1].error.startswith("RateLimited: rate limited")
    assert box.drain(delayed=True) == (1, 0, 0)
    assert platform.sent == [42]


def test_an_error_is_known_by_its_shape(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    platform.refusals = [Answer(Retry_After="3", X_RateLimit_Global="true")]
    app.tasks["answer"].delay(42)
    assert box.drain().retried == 1
    assert paused(app) == {"bot": 3}


def test_the_order_of_the_lane_is_kept(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    platform.refusals = [RateLimited(7)]
    app.tasks["answer"].delay_many([(42,), (42,), (43,)])
    assert box.drain() == (1, 1, 0)
    assert platform.sent == [43]
    assert [call.state for call in box.enqueued()] == ["waiting", "retry"]


def test_a_handler_may_decide_otherwise(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    error = Reject("not worth waiting")
    error.__cause__ = RateLimited(7)
    platform.refusals = [error]
    app.tasks["answer"].delay(42)
    assert box.drain() == (0, 0, 1)


def test_a_task_without_limits_waits_alone_and_says_so_once(
    app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    platform.refusals = [RateLimited(7), RateLimited(7), RateLimited(7)]
    app.tasks["plain"].delay_many([(1,), (2,), (3,), (4,)])
    assert box.drain() == (1, 3, 0)
    assert paused(app) == {}
    said = [record for record in caplog.records if "was refused" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING, logging.INFO, logging.INFO]
    assert "the task has no limit for this" in said[0].getMessage()
    assert box.drain(delayed=True) == (3, 0, 0)


def test_who_is_always_refused_is_a_dead_letter_in_the_end(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    platform.refusals = [RateLimited(1) for _ in range(MAX_REFUSALS + 1)]
    app.tasks["plain"].delay(1)
    assert box.drain(delayed=True) == (0, MAX_REFUSALS, 1)
    (letter,) = box.dead()
    assert (letter.reason, letter.attempt) == ("limited", 1)


def test_a_gate_holds_back_for_as_long_as_it_takes(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    platform.refusals = [RateLimited(1) for _ in range(MAX_REFUSALS + 5)]
    app.tasks["answer"].delay(1)
    assert box.drain(delayed=True) == (1, MAX_REFUSALS + 5, 0)


def test_a_token_in_the_error_is_not_told(app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    token = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"
    error = Answer()
    error.args = (f"429 for https://api.telegram.org/bot{token}/sendMessage",)
    platform.refusals = [error]
    app.tasks["answer"].delay(1)
    box.drain()
    assert token not in caplog.text
    assert token not in box.enqueued()[0].error


@pytest.mark.parametrize("name", ["answer", "answer_in_a_thread"])
def test_log_and_message_name_the_answer_that_the_app_wrapped(
    name: str, app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("could not send")
    error.__cause__ = Answer(Retry_After="3")
    platform.refusals = [error]
    app.tasks[name].delay(1)
    box.drain()
    told = "RuntimeError: could not send (because of Answer: 429 Too Many Requests)"
    assert told in caplog.text
    assert box.enqueued()[0].error == told


@pytest.mark.parametrize("name", ["answer", "answer_in_a_thread"])
def test_log_names_the_permanent_error_that_the_app_wrapped(
    name: str, app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = type("Forbidden", (Exception,), {"__module__": "telegram.error"})
    error = RuntimeError("could not send")
    error.__cause__ = blocked("bot was blocked by the user")
    platform.refusals = [error]
    app.tasks[name].delay(1)
    assert box.drain().dead == 1
    told = "RuntimeError: could not send (because of Forbidden: bot was blocked by the user)"
    lines = [record.getMessage() for record in caplog.records if told in record.getMessage()]
    assert len(lines) == 2, "how the run failed, and that it is a dead letter"
    assert box.dead()[0].error == told


@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("answer", "chatt:42", "Did you mean chat:42? The task has bot, chat:{chat_id}"),
        ("answer_in_a_thread", "bots", "Did you mean bot? The task has bot, chat:{chat_id}"),
        ("answer", "bot:42", "Did you mean bot? The task has bot, chat:{chat_id}"),
        ("answer", "42", "The task has bot, chat:{chat_id}"),
    ],
)
def test_a_limit_that_is_not_there_gets_one_hint_and_no_message_is_lost(
    name: str, key: str, hint: str, app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refusals = [RateLimited(1, key=key), RateLimited(1, key=key)]
    app.tasks[name].delay_many([(1,), (2,)])
    assert box.drain() == (0, 2, 0)
    (said,) = [record for record in caplog.records if "no task of queue bot has such a limit" in record.getMessage()]
    assert said.levelno == logging.WARNING
    assert f"RateLimited(key='{key}')" in said.getMessage()
    assert said.getMessage().endswith(f"only this message waits. {hint}")
    assert box.drain(delayed=True) == (2, 0, 0)


def test_a_limit_of_a_task_without_limits_gets_a_hint_of_its_own(
    app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refusals = [RateLimited(1, key="model:gpt")]
    app.tasks["plain"].delay(1)
    box.drain()
    assert "The task has no limits: give it limits=[...], or raise RateLimited without key=" in caplog.text


@pytest.mark.parametrize(("name", "key"), [("answer", "bot"), ("answer", "chat"), ("answer", "chat:7"), ("plain", "chat:7")])
def test_limits_of_the_task_or_of_others_of_its_queue_get_no_hint(
    name: str, key: str, app: RedisQ, box: Sandbox, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.refusals = [RateLimited(1, key=key)]
    app.tasks[name].delay(1)
    box.drain()
    assert "such a limit" not in caplog.text


def test_limits_of_the_group_get_no_hint(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    app = RedisQ("bot")

    @app.task(queue="other", limits=["model:1/s"], group="llm")
    async def other() -> None: ...

    @app.task(limits=["bot:30/s"], group="llm")
    async def asks(chat_id: int) -> None:
        platform.send(chat_id)

    with sandbox(app) as box:
        platform.refusals = [RateLimited(1, key="model")]
        asks.delay(1)
        box.drain()
    assert "such a limit" not in caplog.text


def test_a_handler_names_a_gate_that_is_not_its_own(app: RedisQ, box: Sandbox, platform: Platform) -> None:
    platform.refusals = [RateLimited(5, key="model:gpt")]
    app.tasks["plain"].delay(1)
    box.drain()
    assert paused(app) == {"model:gpt": 5}


def test_eager_calls_are_tried_again_at_once(app: RedisQ, platform: Platform) -> None:
    with sandbox(app, eager=True) as box:
        platform.refusals = [RateLimited(3600), RateLimited(3600)]
        app.tasks["answer"].delay_many([(1,), (1,), (2,)])
        assert platform.sent == [1, 1, 2]
        platform.refusals = [RateLimited(3600) for _ in range(MAX_REFUSALS + 1)]
        with pytest.raises(RateLimited):
            app.tasks["answer"].delay(1)
        assert box.dead()[0].reason == "limited"


def test_a_sandbox_counts_calls_in_no_limit_unless_asked_to(app: RedisQ, platform: Platform) -> None:
    with sandbox(app) as box:
        app.tasks["answer"].delay_many([(1,), (1,), (1,)])
        assert box.drain().done == 3
    with sandbox(app, limits=True) as box:
        app.tasks["answer"].delay_many([(1,), (1,), (1,)])
        done: list[Any] = []
        for _ in range(4):
            done.append(box.drain().done)
            box.clock.advance(1)
        assert done == [1, 1, 1, 0]
