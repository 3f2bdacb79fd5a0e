"""`async with Worker(app)`: a worker beside the bot's own code, in its event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
import redis

from redisq import Middleware, RedisQ, Worker
from redisq.app.middleware import End
from redisq.broker.scripts import Scripts
from redisq.errors import QueueConflict
from redisq.worker.exits import Exit
from redisq.worker.fitness import Limits
from redisq.worker.run import Run
from tests.servers import RedisServer
from tests.wire import RefusingProxy

SCRIPTS = Scripts()


@pytest.fixture
def app(redis_url: str) -> RedisQ:
    return RedisQ("bot", url=redis_url)


def test_it_works_while_the_block_runs_and_drains_at_its_end(app: RedisQ, raw: redis.Redis) -> None:
    started = []
    begun = asyncio.Event()

    @app.task
    async def hello(name: str) -> None:
        started.append(name)
        begun.set()
        await asyncio.sleep(0.1)
        started.append("done")

    async def bot() -> None:
        async with Worker(app) as worker:
            assert isinstance(worker, Worker)
            await hello.adelay("you")
            await begun.wait()
        await app.aclose()

    asyncio.run(bot())
    assert started == ["you", "done"]
    assert raw.hget("bot:stats", "processed_requests") == b"1"


def test_its_queue_is_there_for_operators_as_soon_as_it_is_ready(app: RedisQ, raw: redis.Redis) -> None:
    @app.task
    async def hello() -> None:
        pass

    async def bot() -> None:
        async with Worker(app):
            # Nothing is awaited before: `redisq pause` of another program may be as quick as this.
            assert raw.exists("bot:config")
        await app.aclose()

    asyncio.run(bot())


def test_none_of_its_threads_is_left_when_it_has_ended(app: RedisQ) -> None:
    @app.task
    def in_a_thread() -> None:
        pass

    async def bot() -> set[threading.Thread]:
        before = set(threading.enumerate())
        await in_a_thread.adelay()
        await Worker(app, burst=True).run()
        await app.aclose()
        # The interpreter may hang at its end for one that is still there.
        return set(threading.enumerate()) - before

    assert asyncio.run(bot()) == set()


def test_a_burst_is_over_when_the_last_handler_has_ended(app: RedisQ, raw: redis.Redis) -> None:
    ended: list[float] = []

    @app.task
    async def hello(sends: int = 0) -> None:
        if sends:
            await hello.adelay(sends - 1)
        await asyncio.sleep(0.05)
        ended.append(time.monotonic())

    @app.task(queue="other")
    async def elsewhere() -> None:
        await hello.adelay(1)
        await asyncio.sleep(0.05)

    async def bot() -> float:
        await elsewhere.adelay()
        await Worker(app, burst=True).run()
        late = time.monotonic() - ended[-1]
        await app.aclose()
        return late

    # An idle worker's block lasts a second; on a busy machine one of them may be as late for another reason.
    assert min(asyncio.run(bot()) for _ in range(3)) < 0.5
    assert raw.hget("bot:stats", "processed_requests") == b"6"
    assert raw.hget("other:stats", "processed_requests") == b"3"


def test_what_has_run_is_gone_without_the_garbage_collector(app: RedisQ) -> None:
    @app.task
    async def hello(number: int) -> None:
        pass

    async def bot() -> None:
        await hello.adelay_many([(number,) for number in range(200)])
        await Worker(app, burst=True).run()
        await app.aclose()

    def runs() -> int:
        return sum(type(thing) is Run for thing in gc.get_objects())

    gc.collect()
    before = runs()
    gc.disable()
    try:
        asyncio.run(bot())
        left = runs() - before
    finally:
        gc.enable()
    assert left < 10, "each run would wait for the collector, which costs more than the run"


def test_what_crashed_and_cannot_run_apart_is_a_dead_letter_after_the_third_time(app: RedisQ, raw: redis.Redis) -> None:
    ran = []

    @app.task
    async def made_in_a_function(number: int) -> None:
        ran.append(number)

    async def bot() -> None:
        for crashes in (2, 3):
            job = await made_in_a_function.adelay(crashes)
            raw.hset("bot:meta", job.id, f"crashes={crashes}")
            await Worker(app, burst=True).run()
        await app.aclose()

    asyncio.run(bot())
    assert ran == [2]
    assert raw.zcard("bot:queue:dlq") == 1
    [meta] = raw.hvals("bot:meta")
    assert meta.startswith(b"crashes=3 score=")
    assert b" reason=suspected text=it was there when 3 workers died" in meta


def test_its_failure_ends_a_block_that_would_wait_for_ever(app: RedisQ, raw: redis.Redis) -> None:
    app.task(name="hello")(print)
    raw.set("bot:queue:main", "another program's")

    async def bot() -> None:
        with pytest.raises(QueueConflict):
            async with Worker(app):
                await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task
        assert not task.cancelling(), "the bot itself is not cancelled"
        await asyncio.sleep(0)

    asyncio.run(bot())
    raw.delete("bot:queue:main")


def test_an_error_in_the_block_is_the_users_and_the_worker_ends_well(app: RedisQ, raw: redis.Redis) -> None:
    app.task(name="hello")(print)
    worker = Worker(app)

    async def bot() -> None:
        async with worker:
            raise LookupError("the bot's own")

    with pytest.raises(LookupError, match="the bot's own"):
        asyncio.run(bot())


def test_a_cancelled_block_ends_the_worker_well(app: RedisQ, raw: redis.Redis) -> None:
    app.task(name="hello")(print)

    async def bot() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), Worker(app):
                await asyncio.Event().wait()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(bot())


def test_it_may_be_stopped_within_the_block(app: RedisQ, raw: redis.Redis) -> None:
    app.task(name="hello")(print)

    async def bot() -> None:
        async with Worker(app) as worker:
            worker.stop()
            await asyncio.sleep(0.01)

    asyncio.run(bot())


def test_a_worker_runs_no_more_than_its_share(app: RedisQ, raw: redis.Redis) -> None:
    ran = []

    @app.task
    async def hello(number: int) -> None:
        ran.append(number)

    async def bot() -> Worker:
        await hello.adelay_many([(number,) for number in range(2000)])
        worker = Worker(app, concurrency=10, limits=Limits(max_tasks=100))
        await worker.run()
        await app.aclose()
        return worker

    worker = asyncio.run(bot())
    assert worker.exit is Exit.RECYCLE
    assert 100 <= len(ran) <= 110 + 10, "a tenth more, so that not all processes end at once; and what ran then"
    assert raw.zcard("bot:queue:main") == 2000 - len(ran)
    assert raw.zcard("bot:queue:processing") == 0


@pytest.mark.parametrize("task", ["coroutine", "function", "hook"])
def test_a_keyboard_interrupt_that_is_no_ctrl_c_is_a_failure(task: str, redis_url: str, raw: redis.Redis) -> None:
    class Interrupts(Middleware):
        def settle(self, end: End) -> None:
            if task == "hook":
                raise KeyboardInterrupt

    app = RedisQ("bot", url=redis_url, middleware=[Interrupts()])
    ran = []

    @app.task
    async def coroutine(number: int) -> None:
        raise KeyboardInterrupt

    @app.task
    def function(number: int) -> None:
        raise KeyboardInterrupt

    @app.task
    async def hook(number: int) -> None:
        ran.append(number)

    async def bot() -> None:
        await app.tasks[task].adelay(1)
        await Worker(app, burst=True, own_signals=True).run()
        await hook.adelay(2)
        await Worker(app, burst=True, own_signals=True).run()
        await app.aclose()

    asyncio.run(bot())
    assert ran[-1:] == [2]
    assert raw.zcard("bot:queue:dlq") == (0 if task == "hook" else 1)


def test_an_error_of_the_first_contact_is_raised_before_the_block_begins(app: RedisQ, raw: redis.Redis) -> None:
    begun = []

    @app.task
    async def hello() -> None: ...

    raw.set("bot:messages", "another program's")

    async def bot() -> None:
        try:
            async with Worker(app):
                begun.append(True)
        finally:
            await app.aclose()

    with pytest.raises(QueueConflict):
        asyncio.run(bot())
    assert not begun
    raw.delete("bot:messages")


@pytest.mark.parametrize("part", ["stats", "messages", "queue:main"])
def test_queue_of_another_program_is_refused_and_no_queue_is_made(part: str, app: RedisQ, raw: redis.Redis) -> None:
    @app.task(queue="mine")
    async def hello() -> None: ...

    @app.task(queue="theirs")
    async def hello_to_them() -> None: ...

    raw.set(f"theirs:{part}", "another program's")

    async def bot() -> None:
        try:
            await Worker(app, queues=["mine", "theirs"]).run()
        finally:
            await app.aclose()

    with pytest.raises(QueueConflict):
        asyncio.run(bot())
    assert raw.keys("*") == [f"theirs:{part}".encode()]
    raw.flushall()


def test_it_begins_while_redis_refuses_writes_and_works_when_it_accepts_them(redis_server: RedisServer, raw: redis.Redis) -> None:
    is_full = [True]

    def refuse(words: list[bytes]) -> str | None:
        reads_only = [SCRIPTS["settle"].sha.encode(), SCRIPTS["settle"].source.encode()]
        if is_full[0] and words[0].upper() in (b"EVAL", b"EVALSHA") and words[1] not in reads_only:
            return "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."
        return None

    proxy = RefusingProxy(redis_server.port, refuse)
    app = RedisQ("bot", url=f"redis://127.0.0.1:{proxy.port}")

    async def bot() -> None:
        ran = asyncio.Event()

        @app.task
        async def hello() -> None:
            ran.set()

        async with Worker(app):
            assert not raw.exists("bot:config")
            is_full[0] = False
            await hello.adelay()
            await asyncio.wait_for(ran.wait(), 20)
        await app.aclose()

    asyncio.run(bot())
    proxy.close()


def test_the_block_begins_when_the_worker_is_ready(app: RedisQ) -> None:
    @app.task
    async def hello() -> None: ...

    async def bot() -> bool:
        async with Worker(app) as worker:
            ready = worker.ready.is_set()
        await app.aclose()
        return ready

    assert asyncio.run(bot())
