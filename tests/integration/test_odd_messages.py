"""Arguments, results and errors that break when they are looked at; a queue that breaks: none of it stops the worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import pytest
import redis

from redisq import Middleware, RedisQ, Reject, Worker
from redisq.app.calls import Calls
from redisq.app.middleware import End
from redisq.app.settings import NOW, TaskOptions
from redisq.broker.commands import Enqueue, claim, enqueue
from redisq.broker.keys import QueueKeys
from redisq.message import Message
from tests.integration.processes import wait_until


class Color(Enum):
    RED = 1


@dataclass
class Fragile:
    """Cannot be made of a zero."""

    by: int

    def __post_init__(self) -> None:
        self.share = 1 / self.by


@dataclass
class Broken:
    """Cannot be looked at."""

    value: int

    def __getattribute__(self, name: str) -> Any:
        if name == "value":
            raise AttributeError("not today")
        return super().__getattribute__(name)


class Unspeakable(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture
def app(redis_url: str) -> RedisQ:
    return RedisQ("odd", url=redis_url)


def work(app: RedisQ, until: Callable[[], bool], **options: Any) -> None:
    """Run a worker until something is true."""

    async def bot() -> None:
        async with Worker(app, shutdown_timeout=1, **options):
            await asyncio.to_thread(wait_until, until, "it is so", 20)
        await app.aclose()

    asyncio.run(bot())
    app.close()


def send_raw(app: RedisQ, task: str, *args: Any) -> None:
    """As a producer in another language would: nobody compared the arguments with the handler's annotations."""
    app.enqueue(Calls(TaskOptions(name=task, queue="odd"), NOW, [Message(task, args, {})]))


def parked(raw: redis.Redis) -> int:
    """How many messages wait for a worker of another version."""
    return sum(b"reason=wrong_arguments" in meta for meta in raw.hvals("odd:meta"))


@pytest.mark.parametrize("argument", [[1, 2], {"a": 7}], ids=["no map", "no color"])
def test_an_argument_that_does_not_fit_is_put_aside_and_the_worker_goes_on(app: RedisQ, raw: redis.Redis, argument: Any) -> None:
    ran = []

    @app.task
    async def paint(colors: dict[str, Color]) -> None:
        ran.append(colors)

    send_raw(app, "paint", argument)
    paint.delay({"a": Color.RED})
    work(app, lambda: raw.hget("odd:stats", "processed_requests") == b"1" and parked(raw) == 1)
    assert ran == [{"a": Color.RED}]


def test_a_dataclass_that_refuses_its_fields_is_put_aside_and_the_worker_goes_on(app: RedisQ, raw: redis.Redis) -> None:
    ran = []

    @app.task
    async def divide(fragile: Fragile) -> None:
        ran.append(fragile.share)

    send_raw(app, "divide", {"by": 0})
    divide.delay(Fragile(2))
    work(app, lambda: raw.hget("odd:stats", "processed_requests") == b"1" and parked(raw) == 1)
    assert ran == [0.5]


def asynchronous(call: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def handler() -> Any:
        return call()

    return handler


KINDS = {"coroutine": asynchronous, "thread": lambda call: call}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_result_that_cannot_be_looked_at_is_not_kept_and_its_task_is_done(app: RedisQ, raw: redis.Redis, kind: Any) -> None:
    app.task(name="answer", result_ttl=60)(kind(lambda: Broken(1)))
    app.send("answer")
    work(app, lambda: raw.hget("odd:stats", "processed_requests") == b"1")
    assert raw.zcard("odd:queue:retry") == raw.zcard("odd:queue:processing") == 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_without_words_is_a_failed_attempt(app: RedisQ, raw: redis.Redis, kind: Any) -> None:
    def fail() -> None:
        raise Unspeakable

    app.task(name="fail", max_retries=0)(kind(fail))
    app.send("fail")
    work(app, lambda: raw.zcard("odd:queue:dlq") == 1)
    [meta] = raw.hvals("odd:meta")
    assert b"reason=exhausted text=Unspeakable" in meta


def test_a_worker_that_cannot_start_a_thread_gives_the_message_back_and_goes_on(
    app: RedisQ, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task
    def answer() -> None:
        pass

    start, refused = threading.Thread.start, []

    def refuse_handlers(thread: threading.Thread) -> None:
        if thread.name.startswith("redisq-handler") and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_handlers)
    answer.delay()
    work(app, lambda: raw.hget("odd:stats", "processed_requests") == b"1", threads=1)
    assert refused
    assert raw.hget("odd:stats", "released") == b"1"
    assert "can't start new thread" in caplog.text


class Unnamed:
    """A header's name that has none."""

    def __str__(self) -> str:
        raise RuntimeError("no name")


class Odd429(Exception):
    """Looks like a platform's refusal, and breaks when it is looked at more closely."""

    status_code = 429
    headers: ClassVar[dict[Any, Any]] = {Unnamed(): "1"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_that_breaks_when_it_is_looked_at_is_a_failed_attempt(app: RedisQ, raw: redis.Redis, kind: Any) -> None:
    def fail() -> None:
        raise Odd429

    app.task(name="fail", max_retries=0)(kind(fail))
    app.send("fail")
    work(app, lambda: raw.zcard("odd:queue:dlq") == 1)
    assert raw.zcard("odd:queue:processing") == 0


def test_a_worker_that_cannot_start_a_thread_for_what_it_acknowledged_first_goes_on(
    app: RedisQ, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran, start, refused = [], threading.Thread.start, []

    @app.task(ack="early")
    def answer(number: int) -> None:
        ran.append(number)

    def refuse_first_handler(thread: threading.Thread) -> None:
        if thread.name.startswith("redisq-handler") and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_first_handler)
    answer.delay(1)
    answer.delay(2)
    work(app, lambda: bool(ran), threads=1)
    assert ran == [2], "at most once: the first is lost, and its slot is not"
    assert "can't start new thread" in caplog.text


def test_a_queue_that_is_refused_does_not_slow_the_others(app: RedisQ, raw: redis.Redis) -> None:
    ran = []

    @app.task(queue="good")
    async def answer(number: int) -> None:
        ran.append(number)

    async def bot() -> None:
        async with Worker(app, queues=["bad", "good"], concurrency=4):
            await answer.adelay(0)
            await asyncio.to_thread(wait_until, lambda: ran, "it works", 20)
            raw.set("bad:queue:main", "another program's")
            raw.zadd("bad:wake", {"1": 1})
            await answer.adelay_many([(number,) for number in range(1, 2001)])
            # With a second of rest for all after each refusal, it would be minutes.
            await asyncio.to_thread(wait_until, lambda: len(ran) == 2001, "all ran", 10)
            raw.delete("bad:queue:main")
        await app.aclose()

    asyncio.run(bot())
    wait_until(lambda: raw.hget("good:stats", "processed_requests") == b"2001", "all settled")
    app.close()


class Undertaker(Middleware):
    """Notes dead letters."""

    def __init__(self) -> None:
        self.seen: set[tuple[str | None, str]] = set()

    def dead(self, end: End) -> None:
        self.seen.add((end.task, end.reason))


def test_each_dead_letter_is_said_with_its_queue_task_id_and_reason(
    redis_url: str, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    undertaker = Undertaker()
    app = RedisQ("odd", url=redis_url, middleware=[undertaker])
    keys = QueueKeys("odd")

    @app.task(name="fail", max_retries=0)
    async def fail() -> None:
        raise ValueError("no")

    @app.task(name="refuse")
    async def refuse() -> None:
        raise Reject("never")

    crashed = fail.delay()
    app.connector.execute(claim(keys, worker="dead", limit=1, lease=1, max_crashes=3))
    raw.hset("odd:meta", crashed.id, "crashes=5")  # it runs apart from the second on: twice as often
    lost = fail.delay()
    raw.hdel("odd:messages", lost.id)
    app.connector.execute(enqueue(keys, [Enqueue("strange", b"\xc1")]))
    wanted = {
        ("fail", crashed.id, "crashed"),
        ("?", lost.id, "body_missing"),
        ("?", "strange", "undecodable"),
        ("fail", fail.delay().id, "exhausted"),
        ("refuse", refuse.delay().id, "rejected"),
    }
    work(app, lambda: raw.zcard("odd:queue:dlq") == len(wanted))
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING" and "dead letter" in each.getMessage()]
    for task, ident, reason in wanted:
        beginning = f"Task {task}[{ident}] of queue odd is a dead letter now ({reason}): "
        assert [line for line in said if line.startswith(beginning)], beginning
    assert len(said) == len(wanted)
    assert undertaker.seen == {(None if task == "?" else task, reason) for task, _, reason in wanted}


def test_an_id_that_is_not_utf8_is_a_dead_letter_and_its_neighbours_run(
    app: RedisQ, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    @app.task(name="count")
    async def count(number: int) -> None:
        runs.append(number)

    for number in range(3):
        count.delay(number)
    raw.hset("odd:messages", b"caf\xe9", raw.hvals("odd:messages")[0])
    raw.zadd("odd:queue:main", {b"caf\xe9": 0})
    work(app, lambda: len(runs) == 3 and raw.zcard("odd:queue:dlq") == 1)
    assert sorted(runs) == [0, 1, 2]
    assert b"reason=undecodable" in raw.hget("odd:meta", b"caf\xe9")
    warnings = [record.message for record in caplog.records if "is a dead letter now" in record.message]
    assert len(warnings) == 1
    assert "caf\\udce9" in warnings[0]


@pytest.mark.parametrize("claimed", [False, True], ids=["a run makes it dead", "a claim finds it dead"])
def test_a_log_filter_that_raises_takes_no_slot(claimed: bool, app: RedisQ, raw: redis.Redis) -> None:
    class Raises(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "is a dead letter now" in record.getMessage():
                raise RuntimeError("the filter is broken")
            return True

    ran = asyncio.Event()

    @app.task(max_retries=0)
    async def fails() -> None:
        raise ValueError("no")

    @app.task
    async def works() -> None:
        ran.set()

    async def bot() -> None:
        async with Worker(app, concurrency=9 if claimed else 1):
            if claimed:
                await app.control.apause("odd")
                await fails.adelay()
                raw.delete("odd:messages")
            await (works if claimed else fails).adelay()
            if claimed:
                await app.control.aresume("odd")
            await asyncio.to_thread(wait_until, lambda: raw.zcard("odd:queue:dlq") == 1, "it is a dead letter")
            if not claimed:
                await works.adelay()
            async with asyncio.timeout(10):
                await ran.wait()
        await app.aclose()

    log, broken = logging.getLogger("odd.worker"), Raises()
    log.addFilter(broken)
    try:
        asyncio.run(bot())
    finally:
        log.removeFilter(broken)
    assert raw.zcard("odd:queue:processing") == 0
