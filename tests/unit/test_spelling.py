"""An option that nothing has is refused with a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import redisq
from redisq import RedisQ, Worker
from redisq.errors import ArgumentsError, ConfigError

app = RedisQ("bot", url="redis://127.0.0.1:1")


@app.task
async def answer(chat_id: int, text: str = "", *, loud: bool = False) -> None: ...


def decorate(**options: Any) -> None:
    RedisQ("other").task(**options)(lambda chat_id: None)


def decorate_shared(**options: Any) -> None:
    redisq.task(**options)(lambda chat_id: None)


def apply(**options: Any) -> None:
    answer.apply_async((42,), **options)


def send(**options: Any) -> None:
    app.send("answer", (42,), **options)


@pytest.mark.parametrize(
    ("use", "option", "says"),
    [
        (decorate, "max_retry", "did you mean max_retries=?"),
        (decorate_shared, "max_retry", "did you mean max_retries=?"),
        (decorate, "retry_backof", "did you mean retry_backoff=?"),
        (decorate, "time_limit", "did you mean timeout=, in seconds?"),
        (decorate, "rate_limit", 'say limits=["name:10/s"]'),
        (decorate, "ignore_result", "say result_ttl=, in seconds"),
        (decorate, "countdown", "it is said for each call: .options(countdown=...).delay(...)"),
        (decorate, "eta", "it is said for each call: .options(eta=...).delay(...)"),
        (decorate, "zzz", "it has ack, autoretry_for, bind,"),
        (answer.options, "countdwn", "did you mean countdown=?"),
        (answer.options, "delay", "did you mean countdown=, in seconds?"),
        (answer.options, "task_id", "redisq makes the ids; to send a call once only say dedupe_key="),
        (answer.options, "max_retries", "it is an option of @task(...)"),
        (answer.options, "chat_id", "it is an argument: give it to delay(), or in kwargs="),
        (apply, "priorty", "did you mean priority=?"),
        (apply, "text", "it is an argument: give it to delay(), or in kwargs="),
        (send, "countdwn", "did you mean countdown=?"),
        (send, "text", "it is an argument: give it in kwargs="),
        (lambda **options: RedisQ("bot", **options), "ulr", "did you mean url=?"),
        (lambda **options: RedisQ("bot", **options), "broker_url", "say url="),
        (lambda **options: RedisQ("bot", **options), "prefix", "did you mean namespace=?"),
        (lambda **options: Worker(app, **options), "concurency", "did you mean concurrency=?"),
    ],
)
def test_an_unknown_option_is_an_error_that_says_what_was_meant(use: Callable[..., Any], option: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        use(**{option: 1})
    assert f"has no option {option!r}: " in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"countdown": 60},
            "argument 'countdown'; it is an option of the call: answer.options(countdown=...).delay(...)",
        ),
        ({"eta": 60}, "it is an option of the call: answer.options(eta=...).delay(...)"),
        ({"txt": "hi"}, "unexpected keyword argument 'txt'; did you mean text=?"),
        ({"loudd": True}, "did you mean loud=?"),
        ({"zzz": True}, "unexpected keyword argument 'zzz'"),
    ],
)
def test_an_option_given_as_an_argument_is_an_error_that_says_where_it_goes(arguments: dict[str, Any], says: str) -> None:
    for call in (lambda: answer.delay(42, **arguments), lambda: answer.delay_many([{"chat_id": 42, **arguments}])):
        with pytest.raises(ArgumentsError) as refused:
            call()
        assert says in str(refused.value)


def test_a_parameter_may_have_the_name_of_an_option() -> None:
    @app.task
    async def plan(eta: int, queue: str) -> None: ...

    plan.check((), {"eta": 5, "queue": "a"})
