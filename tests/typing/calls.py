"""Calls keep the signature of their handler; lines with an E comment are what `mypy --strict` must refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redisq import RedisQ, task

app = RedisQ("bot")


@app.task
async def answer(chat_id: int, text: str = "", *, loud: bool = False) -> str:
    return text * chat_id


@app.task(queue="chat_api", max_retries=5)
def answer_sync(chat_id: int, text: str) -> int:
    return chat_id


@task
async def shared(name: str) -> None: ...


@task(queue="mail", ack="early", result_ttl=60)
def shared_sync(name: str, *copies: str) -> bool:
    return bool(name)


def from_sync_code() -> None:
    answer.delay(42)
    answer.delay(42, "hi", loud=True)
    answer.delay(chat_id=42, text="hi")
    answer.delay("42")  # E: incompatible type "str"; expected "int"
    answer.delay(42, "hi", True)  # E: Too many
    answer.delay()  # E: Missing positional argument "chat_id"
    answer.delay(42, txt="hi")  # E: Unexpected keyword argument "txt"
    answer.delay(42, None)  # E: incompatible type "None"; expected "str"
    answer_sync.delay(42, "hi")
    answer_sync.delay(42)  # E: Missing positional argument "text"
    shared.delay("you")
    shared.delay(1)  # E: incompatible type "int"; expected "str"
    shared_sync.delay("you", "a", "b")
    shared_sync.delay("you", 1)  # E: incompatible type "int"; expected "str"


async def from_async_code() -> None:
    await answer.adelay(42, "hi", loud=True)
    await answer.adelay("42")  # E: incompatible type "str"; expected "int"
    await answer.adelay(42, quiet=True)  # E: Unexpected keyword argument "quiet"
    answer.adelay(42)  # E: must be used
    await answer_sync.adelay(42, "hi")
    await answer_sync.adelay(42, "hi", "more")  # E: Too many arguments
    await shared.adelay(b"you")  # E: incompatible type "bytes"; expected "str"
    answer.delay(42).aget()  # E: must be used


def options_keep_the_signature() -> None:
    later = answer.options(countdown=60, priority=9)
    later.delay(42, "hi")
    later.delay("42")  # E: incompatible type "str"; expected "int"
    answer.options(countdown=timedelta(hours=1)).delay(42)
    answer.options(eta=datetime.now(UTC), expires=datetime.now(UTC)).delay(42)
    shared.options(queue="bulk").delay()  # E: Missing positional argument "name"
    answer.options(key=42, dedupe_key="7", dedupe_ttl=60, dedupe="extend", cost=3).delay(42)
    answer.options(dedupe="drop")  # E: incompatible type
    answer.options(countdown="60")  # E: incompatible type "str"
    answer.options(eta=60)  # E: incompatible type "int"
    answer.options(prio=9)  # E: Unexpected keyword argument "prio"


def many_and_by_name() -> None:
    answer.delay_many([(42, "a"), (43, "b")])
    answer.delay_many({"chat_id": number} for number in range(3))
    answer.delay_many([42])  # E: has incompatible type "int"
    answer.apply_async((42, "hi"), countdown=60)
    app.send("answer", (42, "hi"), queue="chat_api", countdown=60)
    app.send(answer)  # E: expected "str"
    app.send("answer", 42)  # E: expected "Sequence[Any]"
