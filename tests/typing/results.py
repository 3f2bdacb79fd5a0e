"""Jobs know what their handler returns, whether it is `async def` or `def`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from redisq import Job, RedisQ, Task, task

app = RedisQ("bot")


@app.task(result_ttl=60)
async def answer(chat_id: int) -> str:
    return str(chat_id)


@app.task
def count(text: str) -> int:
    return len(text)


@task
async def forget() -> None: ...


@task(result_ttl=60)
def find(text: str) -> str | None:
    return text or None


def in_sync_code() -> None:
    assert_type(answer.delay(42), Job[str])
    assert_type(answer.delay(42).get(timeout=5), str)
    assert_type(answer.options(priority=9).delay(42).get(), str)
    assert_type(answer.delay_many([(1,), (2,)]), list[Job[str]])
    assert_type(answer.apply_async((1,)), Job[str])
    assert_type(count.delay("hi").get(), int)
    assert_type(forget.delay(), Job[None])
    assert_type(find.delay("hi").get(), str | None)
    assert_type(answer.delay(42).cancel(), bool)
    assert_type(answer.delay(42).position(), int | None)


async def in_async_code() -> None:
    assert_type(await (await answer.adelay(42)).aget(timeout=5), str)
    assert_type(await answer.adelay_many([(1,)]), list[Job[str]])
    assert_type(await answer.aapply_async((1,)), Job[str])
    assert_type(await (await count.adelay("hi")).aget(), int)
    assert_type(await answer.delay(42).acancel(), bool)


async def the_task_is_still_the_function() -> None:
    assert_type(await answer(42), str)
    assert_type(count("hi"), int)
    answer("42")  # E: incompatible type "str"; expected "int" # E: must be used
    count()  # E: Missing positional argument "text"


def what_nobody_knows_is_any() -> None:
    assert_type(app.send("answer", (42,)), Job[Any])
    assert_type(app.job("some-id").get(), Any)


def names_for_users() -> None:
    a_job: Job = answer.delay(42)
    text_job: Job[str] = answer.delay(42)
    wider: Job[str | None] = answer.delay(42)
    number_job: Job[int] = answer.delay(42)  # E: expression has type "Job[str]", variable has type "Job[int]"
    number: int = text_job.get()  # E: expression has type "str", variable has type "int"
    plain: Task[[str], int] = count
    full: Task[[int], Coroutine[Any, Any, str], str] = answer
    other: Task[[int], int] = count  # E: variable has type "Task[[int], int, Any]"
    anything: list[Task[..., Any]] = [answer, count, forget, find]
    print(a_job, wider, number_job, number, plain, full, other, anything)
