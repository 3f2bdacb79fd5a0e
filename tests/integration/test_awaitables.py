"""A handler's body runs, whatever kind of callable it is; what does not run when it is called is refused, or fails."""

from __future__ import annotations

import asyncio
import functools
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


def test_a_callable_without_a_name_wants_one() -> None:
    with pytest.raises(ConfigError, match="name="):
        RedisQ("bot").task(functools.partial(_generator))


def test_a_class_method_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="static method"):
        RedisQ("bot").task(classmethod(lambda cls: None))  # type: ignore[call-overload]
