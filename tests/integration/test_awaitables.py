"""A handler's body runs, whatever kind of callable it is; what does not run when it is called is refused, or fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from redisq import RedisQ, Worker
from redisq.errors import ConfigError
from redisq.testing import sandbox
from tests.integration.awaitable_bot import HANDLERS, Hooks, ran


@pytest.fixture(params=[False, True], ids=["without hooks", "with hooks"])
def app(request: pytest.FixtureRequest) -> RedisQ:
    ran.clear()
    app = RedisQ("bot", middleware=[Hooks()] if request.param else [])
    for name, handler in HANDLERS.items():
        app.task(name=name, result_ttl=60)(handler)
    return app


@pytest.mark.parametrize("name", HANDLERS)
def test_the_body_runs_in_a_worker(name: str, app: RedisQ) -> None:
    with sandbox(app) as box:
        job = app.send(name, (2,))
        assert box.drain().done == 1
        assert job.get(timeout=1) == 4
    assert ran == [2]


@pytest.mark.parametrize("name", HANDLERS)
def test_the_body_runs_in_eager_mode(name: str, app: RedisQ) -> None:
    async def from_async_code() -> Any:
        return await app.asend(name, (3,))

    with sandbox(app, eager=True):
        assert app.send(name, (2,)).get(timeout=1) == 4
        assert asyncio.run(from_async_code()).get(timeout=1) == 6
    assert ran == [2, 3]


@pytest.mark.parametrize("name", ["wrapper", "object"])
def test_the_body_runs_in_a_process_of_its_own(name: str, redis_url: str) -> None:
    from tests.integration import awaitable_bot

    app = awaitable_bot.apart.at(url=redis_url)

    async def bot() -> Any:
        async with Worker(app, processes=1):
            result = await (await app.asend(name, (2,))).aget(timeout=20)
        await app.aclose()
        return result

    assert asyncio.run(bot()) == 4
    app.close()


def test_what_a_plain_function_returned_is_stopped_at_its_timeout(redis_url: str, raw: redis.Redis) -> None:
    app = RedisQ("bot", url=redis_url)
    ends: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    @app.task(timeout=0.1, max_retries=0)
    def starts() -> Awaitable[None]:
        return forever()

    async def bot() -> None:
        await starts.adelay()
        await Worker(app, burst=True).run()
        await app.aclose()

    asyncio.run(bot())
    assert ends == ["cancelled"]
    assert raw.zcard("bot:queue:dlq") == 1
    app.close()


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


class _Calls:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "handler", [_generator, _async_generator, functools.partial(_generator), staticmethod(_async_generator), _Calls()]
)
def test_a_generator_function_is_refused_where_it_is_decorated(handler: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"task g: it is an? (async )?generator function.*remove the `yield`"):
        RedisQ("bot").task(name="g")(handler)


@pytest.mark.parametrize("handler", [_generator, _async_generator])
def test_a_generator_behind_a_wrapper_is_a_dead_letter(handler: Callable[[], Any]) -> None:
    app = RedisQ("bot")

    @app.task
    @functools.wraps(handler)
    def wrapped() -> Any:
        return handler()

    with sandbox(app) as box:
        wrapped.delay()
        assert box.drain().dead == 1
        letter = box.dead()[0]
        assert letter.reason == "rejected"
        assert "returned a generator, whose body has not run" in letter.error


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


_manager = contextlib.contextmanager(_generator)
_async_manager = contextlib.asynccontextmanager(_async_generator)


class _Enters:
    __call__ = contextlib.contextmanager(lambda self: _generator())


@pytest.mark.parametrize(
    "handler",
    [
        _manager,
        _async_manager,
        functools.partial(_manager),
        staticmethod(_async_manager),
        _Enters(),
        contextlib.contextmanager(_wrapped(_generator)),
    ],
)
def test_a_context_manager_is_refused_where_it_is_decorated(handler: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"task g: it is a context manager.*a function that enters it with `with`"):
        RedisQ("bot").task(name="g")(handler)


@pytest.mark.parametrize("handler", [_manager, _async_manager])
def test_a_context_manager_behind_a_wrapper_is_a_dead_letter(handler: Callable[[], Any], app: RedisQ) -> None:
    app.task(name="wrapped")(_wrapped(handler))
    with sandbox(app) as box:
        app.send("wrapped")
        assert box.drain().dead == 1
        letter = box.dead()[0]
        assert letter.reason == "rejected"
        assert "returned a context manager, whose body has not run: enter it with `with`" in letter.error


def _inside() -> str:
    with _manager() as number:
        ran.append(number)
    return "done"


@_manager()
def _decorated_by_one() -> None:
    ran.append(1)


def _returns_what_it_has_entered() -> Any:
    manager = _manager()
    with manager as number:
        ran.append(number)
    return manager


def _returns_what_it_has_read() -> Any:
    numbers = _generator()
    ran.extend(numbers)
    return numbers


async def _returns_what_it_has_read_async() -> Any:
    numbers = _async_generator()
    async for number in numbers:
        ran.append(number)
    return numbers


@pytest.mark.parametrize(
    "handler",
    [_inside, _decorated_by_one, _returns_what_it_has_entered, _returns_what_it_has_read, _returns_what_it_has_read_async],
)
def test_a_handler_whose_body_has_run_is_done(handler: Callable[[], Any], app: RedisQ) -> None:
    app.task(name="used")(handler)
    with sandbox(app) as box:
        app.send("used")
        assert box.drain().done == 1
    assert ran == [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: map(ran.append, [1]),
        lambda: filter(ran.append, [1]),
        lambda: zip([1], [2], strict=True),
        lambda: enumerate([1]),
        lambda: itertools.starmap(ran.append, [(1,)]),
        lambda: itertools.chain.from_iterable(map(ran.append, [1]) for _ in range(1)),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_lazy_iterator_that_nothing_reads_is_done_with_a_warning(
    make: Callable[[], Any], is_async: bool, app: RedisQ, caplog: pytest.LogCaptureFixture
) -> None:
    async def make_async() -> Any:
        return make()

    app.task(name="lazy")(make_async if is_async else make)
    with sandbox(app) as box:
        app.send("lazy")
        assert box.drain().done == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(
        f"Task lazy is done, but it returned an object of type {type(make()).__name__}, which does its work only"
    )


@pytest.mark.parametrize("function", [_inside, _Enters().__call__, functools.partial(_inside)])
def test_a_function_that_nothing_calls_is_done_with_a_warning(
    function: Callable[[], Any], app: RedisQ, caplog: pytest.LogCaptureFixture
) -> None:
    app.task(name="forgets")(lambda: function)
    with sandbox(app) as box:
        app.send("forgets")
        assert box.drain().done == 1
    assert "Task forgets is done, but it returned a function, which nothing calls" in caplog.text


class _Odd:
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("nobody reads it")


@pytest.mark.parametrize("odd", [_Odd(), object(), iter([1]), range(3), {1}, int, contextlib.nullcontext()])
def test_an_odd_object_that_nobody_keeps_is_ignored(odd: Any, app: RedisQ, caplog: pytest.LogCaptureFixture) -> None:
    app.task(name="odd")(lambda: odd)
    with sandbox(app) as box:
        app.send("odd")
        assert box.drain().done == 1
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_callable_without_a_name_wants_one() -> None:
    with pytest.raises(ConfigError, match="name="):
        RedisQ("bot").task(functools.partial(_generator))


def test_a_class_method_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="static method"):
        RedisQ("bot").task(classmethod(lambda cls: None))  # type: ignore[call-overload]
