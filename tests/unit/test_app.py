from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from redisq import Job, RedisQ
from redisq.broker import commands
from redisq.broker.connector import Connector
from redisq.codec.msgpack import decode
from redisq.errors import BrokerFull, BrokerUnavailable, ConfigError, EncodeError, PartlyEnqueued, UnknownTask
from redisq.message import Message
from redisq.testing import FakeServer


@pytest.fixture
def app() -> RedisQ:
    app = RedisQ("bot", server=FakeServer())

    @app.task(queue="chat_api")
    async def answer(chat_id: int, text: str, *, loud: bool = False) -> str:
        return f"{chat_id}: {text}"

    return app


def found(app: RedisQ, job: Job) -> commands.Found:
    found = app.connector.execute(commands.find(app.keys(job.queue), job.id))
    assert found
    return found


def test_a_task_is_still_the_function(app: RedisQ) -> None:
    assert asyncio.run(app.tasks["answer"](1, "hi")) == "1: hi"
    assert app.tasks["answer"].__name__ == "answer"


def test_delay_stores_the_call(app: RedisQ) -> None:
    job = app.tasks["answer"].delay(42, "hi", loud=True)
    assert (job.task, job.queue) == ("answer", "chat_api")
    assert found(app, job).state == "waiting"
    assert decode(found(app, job).body) == Message("answer", [42, "hi"], {"loud": True})


def test_async_and_many_store_in_order(app: RedisQ) -> None:
    async def send() -> list[Job]:
        answer = app.tasks["answer"]
        jobs = [await answer.adelay(1, "a"), *await answer.adelay_many([(2, "b"), {"chat_id": 3, "text": "c"}])]
        await app.aclose()
        return jobs

    jobs = asyncio.run(send()) + app.tasks["answer"].delay_many([(4, "d"), [5, "e"]])
    assert [found(app, job).position for job in jobs] == [1, 2, 3, 4, 5]


def test_an_app_serves_one_event_loop_after_another(app: RedisQ) -> None:
    async def send() -> None:
        await app.tasks["answer"].adelay(1, "a")
        await app.aclose()

    asyncio.run(send())
    asyncio.run(send())
    assert app.connector.execute(commands.inspect(app.keys("chat_api"))).waiting == 2


def test_no_calls_are_no_jobs(app: RedisQ) -> None:
    assert app.tasks["answer"].delay_many([]) == []


def test_countdown_eta_and_priority(app: RedisQ) -> None:
    answer = app.tasks["answer"]
    first = answer.delay(1, "plain")
    urgent = answer.options(priority=9).delay(2, "urgent")
    assert [found(app, job).position for job in (urgent, first)] == [1, 2]
    later = answer.options(countdown=timedelta(hours=1)).delay(3, "later")
    at = datetime.now(UTC) + timedelta(days=1)
    fixed = answer.options(eta=at).delay(4, "fixed")
    past = answer.options(eta=datetime(1969, 1, 1, tzinfo=UTC)).delay(5, "past")
    assert [found(app, job).state for job in (later, fixed, past)] == ["delayed", "delayed", "waiting"]
    assert found(app, fixed).score == round(at.timestamp() * 1_000_000)
    assert answer.definition.priority == 0, "options() leaves the task alone"


def test_a_tasks_own_priority_counts_unless_the_call_says_other(app: RedisQ) -> None:
    @app.task(queue="chat_api", priority=5)
    def urgent() -> None: ...

    plain, high, lowered = app.tasks["answer"].delay(1, "a"), urgent.delay(), urgent.options(priority=0).delay()
    assert [found(app, job).position for job in (high, plain, lowered)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": 256}, "priority=256"),
        ({"priority": -1}, "priority=-1"),
        ({"priority": True}, "priority=True"),
        ({"countdown": -1}, "countdown=-1"),
        ({"countdown": float("nan")}, "countdown=nan"),
        ({"countdown": 1e12}, "countdown="),
        ({"countdown": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "not both"),
        ({"eta": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"eta": datetime(9000, 1, 1, tzinfo=UTC)}, "before the year 2255"),
    ],
)
def test_bad_options_of_a_call_are_errors_at_once(app: RedisQ, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        app.tasks["answer"].options(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a:b"}, "task 'a:b'"),
        ({"queue": "a b"}, "queue 'a b'"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"max_retries": 1.5}, "max_retries=1.5"),
        ({"retry_backoff": 0}, "retry_backoff=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": -5}, "timeout=-5"),
        ({"priority": 1000}, "priority=1000"),
        ({"max_retry": 3}, "max_retry"),
    ],
)
def test_bad_options_of_a_task_are_errors_at_once(app: RedisQ, options: dict[str, Any], says: str) -> None:
    def work() -> None: ...

    with pytest.raises(ConfigError, match=says):
        app.task(**options)(work)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "a b"}, "app 'a b'"),
        ({"namespace": "a:b"}, "namespace 'a:b'"),
        ({"lease": 2}, "lease=2"),
        ({"lease": -1}, "lease=-1"),
        ({"priority_step": 10**9}, "priority_step="),
        ({"max_deliveries": 0}, "max_deliveries=0"),
        ({"url": "http://localhost"}, "http://localhost"),
        ({"url": "redis://localhost", "timeout": 0}, "timeout=0"),
    ],
)
def test_bad_settings_of_an_app_are_errors_at_once(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RedisQ(**{"name": "bot", **settings})


def test_a_url_with_a_password_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        RedisQ("bot", url="http://:hunter2@localhost")
    assert "hunter2" not in str(caught.value)


def test_two_tasks_of_one_name_are_an_error_that_names_both(app: RedisQ) -> None:
    with pytest.raises(ConfigError, match=r"two tasks are called 'answer': .*answer and .*lambda"):
        app.task(name="answer")(lambda: None)


def test_an_unknown_task_is_an_error_that_names_the_known_ones(app: RedisQ) -> None:
    with pytest.raises(UnknownTask, match="no task 'answr'; it has answer"):
        app.find_task("answr")


def test_a_task_without_a_queue_goes_to_the_apps_own(app: RedisQ) -> None:
    @app.task
    def plain() -> None: ...

    assert plain.delay().queue == "bot"
    assert app.queues == ["chat_api", "bot"]


def test_an_argument_that_cannot_travel_is_named_and_nothing_is_sent(app: RedisQ) -> None:
    with pytest.raises(EncodeError, match="task answer: argument text of type object: object cannot travel"):
        app.tasks["answer"].delay_many([(1, "fine"), (2, object())])
    with pytest.raises(EncodeError, match="argument loud= of type set"):
        app.tasks["answer"].delay(1, "a", loud={1})
    with pytest.raises(EncodeError, match="argument chat_id of type int"):
        app.tasks["answer"].delay(2**64, "too large")
    assert app.connector.execute(commands.inspect(app.keys("chat_api"))).waiting == 0


class FailsFrom:
    """A server whose connector fails from its n-th call on."""

    def __init__(self, n: int, error: Exception) -> None:
        self.calls, self.n, self.error = 0, n, error
        self.server = FakeServer()

    def wrap(self, execute_many: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def failing(batch: Any) -> list[Any]:
            self.calls += 1
            if self.calls >= self.n:
                if isinstance(self.error, BrokerUnavailable):
                    raise self.error
                return [self.error]
            return execute_many(batch)

        return failing


@pytest.mark.parametrize("error", [BrokerFull("full"), BrokerUnavailable("away")])
def test_many_calls_that_are_partly_accepted_say_which(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = FailsFrom(2, error)
    app = RedisQ("bot", server=fails.server)

    @app.task
    def work(number: int) -> None: ...

    connector: Connector = app.connector
    monkeypatch.setattr(connector, "execute_many", fails.wrap(connector.execute_many))
    with pytest.raises(PartlyEnqueued, match="1000 of 1500 messages were accepted, then: ") as caught:
        work.delay_many([(number,) for number in range(1500)])
    assert len(caught.value.accepted) == 1000
    assert fails.calls == 2
    with pytest.raises(type(error)):
        work.delay_many([(1,)])
