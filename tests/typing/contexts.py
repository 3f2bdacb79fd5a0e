"""A bound handler gets the context; its callers do not give it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, assert_type

from redisq import Context, Job, Middleware, RedisQ, current_context, task
from redisq.middleware import End, LogRuns, OutgoingCall, Progress

app = RedisQ("bot", middleware=[LogRuns()])


@app.task(bind=True, queue="chat_api", result_ttl=60)
async def answer(context: Context, chat_id: int, text: str = "") -> str:
    context.progress(1, 2, "half")
    assert_type(context.remaining(), float | None)
    return text * chat_id


@task(bind=True)
def shared(context: Context, name: str) -> int:
    context.progress("half")  # E: incompatible type "str"; expected "float"
    return context.attempt


@app.task(bind=False)
def plain(name: str) -> int:
    return len(name)


@app.task(bind=True)  # E: incompatible type
def without_a_context(name: str) -> None: ...


class Alerts(Middleware):
    def enqueue(self, call: OutgoingCall) -> OutgoingCall:
        return call.replace(priority="9")  # E: incompatible type "str"

    def run(self, context: Context) -> Generator[None, Any, Any]:
        yield

    def dead(self, end: End) -> None:
        assert_type(end.task, str | None)

    def settle(self, job: str) -> None: ...  # E: incompatible with supertype


def callers() -> None:
    assert_type(answer.delay(42), Job[str])
    answer.delay(42, text="hi")
    answer.delay("42")  # E: incompatible type "str"; expected "int"
    answer.delay()  # E: Missing positional argument "chat_id"
    shared.delay("you")
    shared.delay(1)  # E: incompatible type "int"; expected "str"
    plain.delay("you")
    assert_type(answer.delay(42).progress(), Progress | None)
    assert_type(current_context(), Context | None)
    app.add_middleware(Alerts(), Alerts)  # E: incompatible type "type[Alerts]"; expected "Middleware"
