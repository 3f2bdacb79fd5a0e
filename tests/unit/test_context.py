"""What a handler can know of its job, and say of its progress."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from redisq import Context, RedisQ, current_context
from redisq.app.progress import Progress, read_progress
from redisq.errors import ArgumentsError, ConfigError
from redisq.testing import Sandbox, sandbox

app = RedisQ("context", url="redis://nowhere.invalid")
seen: list[Context | None] = []


def deeper_down() -> None:
    seen.append(current_context())


@app.task(bind=True, max_retries=2, timeout=60, retry_backoff=1)
async def bound(context: Context, fails: int = 0) -> None:
    seen.append(context)
    deeper_down()
    await asyncio.to_thread(deeper_down)
    context.progress(context.attempt, 3, "at it")
    if context.attempt <= fails:
        raise ValueError("again")


@app.task(bind=True, max_retries=2, timeout=None, retry_backoff=1)
def bound_sync(context: Context, fails: int = 0) -> None:
    seen.append(context)
    deeper_down()
    context.progress(context.attempt, 3, "at it")
    if context.attempt <= fails:
        raise ValueError("again")


@app.task(soft_timeout=5, timeout=60, expires=3600)
async def unbound(text: str) -> None:
    seen.append(current_context())


@app.task
def unbound_sync() -> None:
    seen.append(current_context())


@pytest.fixture(params=[False, True], ids=["worker", "eager"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    seen.clear()
    with sandbox(app, eager=request.param) as box:
        yield box


@pytest.mark.parametrize("task", [bound, bound_sync])
def test_a_bound_handler_gets_the_context_of_its_job(task: object, box: Sandbox) -> None:
    job = bound.delay() if task is bound else bound_sync.delay()
    box.drain()
    context = seen[0]
    assert context is not None
    assert (context.id, context.task, context.queue) == (job.id, job.task, "context")
    assert (context.attempt, context.max_retries, context.is_last_attempt) == (1, 2, False)
    assert context.worker
    assert context.expires is None
    assert all(each is context for each in seen)
    assert len(seen) == (3 if task is bound else 2)


def test_a_retry_is_another_attempt(box: Sandbox) -> None:
    bound_sync.delay(fails=2)
    box.drain(delayed=True)
    assert [each.attempt for each in seen[::2] if each] == [1, 2, 3]
    assert seen[-1]
    assert seen[-1].is_last_attempt


def test_the_time_that_is_left(box: Sandbox) -> None:
    before = datetime.now(UTC)
    bound.delay()
    bound_sync.delay()
    unbound.delay("hi")
    box.drain()
    by_task = {each.task: each for each in seen if each}
    left = by_task["bound"].remaining()
    assert left is not None
    assert 0 < left <= 60
    deadline = by_task["bound"].deadline
    assert deadline is not None
    assert before < deadline <= datetime.now(UTC) + timedelta(seconds=60)
    assert by_task["bound_sync"].remaining() is None
    assert by_task["bound_sync"].deadline is None
    soft = by_task["unbound"].remaining()
    assert soft is not None
    assert soft <= 5


def test_when_it_would_have_expired(box: Sandbox) -> None:
    unbound.delay("hi")
    box.drain()
    context = seen[0]
    assert context is not None
    assert context.expires == box.clock.now() + timedelta(hours=1)


def test_outside_of_a_job_there_is_no_context(box: Sandbox) -> None:
    unbound_sync.delay()
    box.drain()
    assert seen[0] is not None
    assert current_context() is None


def test_eager_async_callers_keep_their_own_context() -> None:
    seen.clear()

    async def caller() -> None:
        await unbound.adelay("hi")
        assert current_context() is None

    with sandbox(app, eager=True):
        asyncio.run(caller())
    assert len(seen) == 1


@pytest.mark.parametrize("task", ["bound", "bound_sync"])
def test_progress_is_read_from_anywhere(task: str, box: Sandbox) -> None:
    job = app.send(task)
    box.drain()
    assert job.progress() == Progress(1, 3, "at it", attempt=1)
    assert 0 < box.client.ttl(app.keys("context").progress(job.id)) <= 3600


def test_the_last_of_many_words_counts() -> None:
    @(many := RedisQ("many", url="redis://nowhere.invalid")).task(bind=True)
    def count(context: Context) -> None:
        others = [threading.Thread(target=context.progress, args=(each,)) for each in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        for done in range(10_000):
            context.progress(done, 10_000)

    with sandbox(many) as box:
        job = count.delay()
        box.drain()
        progress = job.progress()
    assert progress == Progress(9999, 10_000)
    assert progress.fraction == pytest.approx(0.9999)


def test_progress_takes_numbers_and_text() -> None:
    context = Context("id", "task", "queue")
    context.progress(1)
    context.progress(0.5, 1, "half")
    for wrong in (("1",), (1, "2"), (1, 2, 3)):
        with pytest.raises(TypeError, match="want numbers and text"):
            context.progress(*wrong)  # type: ignore[arg-type]


def test_progress_as_text() -> None:
    assert str(Progress(3)) == "3"
    assert str(Progress(3, 10, "pages")) == "3 of 10, pages"
    assert Progress(3).fraction is None
    assert Progress(30, 10).fraction == 1.0


@pytest.mark.parametrize("raw", [None, b"", b"\xc1", b"\x01", b"\x91\x01", b"\x94\xa1a\xc0\xa0\x01"])
def test_what_is_no_progress_reads_as_none(raw: bytes | None) -> None:
    assert read_progress(raw) is None


def test_callers_do_not_give_the_context() -> None:
    assert list(inspect.signature(bound).parameters) == ["fails"]
    with pytest.raises(ArgumentsError):
        bound.delay(1, 2)  # type: ignore[call-arg]
    with sandbox(app) as box:
        bound.delay(1)
        box.assert_enqueued(bound, args=(1,))
        box.assert_enqueued(bound, kwargs={"fails": 1})


def test_a_direct_call_gets_a_context_of_no_job() -> None:
    seen.clear()
    bound_sync()
    assert seen[0]
    assert (seen[0].task, seen[0].id) == ("bound_sync", "direct-call")
    assert seen[1] is None


def test_bind_needs_a_parameter_for_the_context() -> None:
    def nothing() -> None: ...

    def named(*, context: Context) -> None: ...

    for handler in (nothing, named):
        with pytest.raises(ConfigError, match="whose first parameter is the context"):
            app.task(bind=True)(handler)  # type: ignore[arg-type]
