"""Calls of one event loop reach Redis in the order in which they were made, and one of them does not disturb the others."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import redis

from redisq import RedisQ
from redisq.app.task import Task
from redisq.codec.msgpack import decode
from redisq.errors import BrokerFull, BrokerUnavailable, LaneFull
from tests.servers import RedisServer
from tests.wire import RefusingProxy

Send = Task[[int], None]


@pytest.fixture
def app(redis_url: str) -> Iterator[RedisQ]:
    app = RedisQ("bot", url=redis_url, timeout=5)
    yield app
    app.close()


@pytest.fixture
def answer(app: RedisQ) -> Send:
    @app.task(queue="chat_api")
    async def answer(number: int) -> None: ...

    return answer


def _run(app: RedisQ, work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await work()
        await app.aclose()

    asyncio.run(run())


def _waiting(raw: redis.Redis, queue: str = "chat_api") -> list[str]:
    """The ids of a queue's waiting messages, first one first."""
    return [ident.decode() for ident in raw.zrange(f"{queue}:queue:main", 0, -1)]


@pytest.mark.parametrize("count", [15, 2_000])
def test_concurrent_calls_of_a_loop_keep_their_order(app: RedisQ, answer: Send, raw: redis.Redis, count: int) -> None:
    async def work() -> None:
        jobs = await asyncio.gather(*(answer.adelay(number) for number in range(count)))
        assert _waiting(raw) == [job.id for job in jobs]

    _run(app, work)


def test_batches_and_single_calls_keep_their_order(app: RedisQ, answer: Send, raw: redis.Redis) -> None:
    async def work() -> None:
        first, many, last = await asyncio.gather(
            answer.adelay(0), answer.adelay_many([(number,) for number in range(3_000)]), answer.adelay(1)
        )
        assert _waiting(raw) == [job.id for job in (first, *many, last)]

    _run(app, work)


def test_concurrent_calls_keep_their_order_while_connections_are_killed(app: RedisQ, answer: Send, raw: redis.Redis) -> None:
    async def work() -> None:
        ended = threading.Event()

        def kill() -> None:
            while not ended.is_set():
                sent = len(_waiting(raw))
                raw.client_kill_filter(_type="normal", skipme=True)
                while not ended.is_set() and len(_waiting(raw)) == sent:
                    pass

        async def send() -> list[str]:
            jobs = [asyncio.create_task(answer.adelay(number)) for number in range(300)]
            for _ in range(20):
                jobs += [asyncio.create_task(answer.adelay(number)) for number in range(20)]
                await asyncio.sleep(0)
            return [job.id for job in await asyncio.gather(*jobs)]

        killer = asyncio.create_task(asyncio.to_thread(kill))
        try:
            ids = await send()
        finally:
            ended.set()
            await killer
        assert _waiting(raw) == ids

    _run(app, work)


def test_a_cancelled_call_disturbs_no_other(app: RedisQ, answer: Send, raw: redis.Redis) -> None:
    async def work() -> None:
        calls = [asyncio.create_task(answer.adelay(number)) for number in range(50)]
        await asyncio.sleep(0)
        cancelled = calls[0::7]
        for call in cancelled:
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        kept = [
            job.id for call, job in zip(calls, ended, strict=True) if call not in cancelled and not isinstance(job, BaseException)
        ]
        assert len(kept) == len(calls) - len(cancelled)
        assert [ident for ident in _waiting(raw) if ident in kept] == kept

    _run(app, work)


def test_a_refused_call_fails_alone(app: RedisQ, raw: redis.Redis) -> None:
    @app.task(queue="chat_api", key="{number}", lane_cap=1)
    async def answer(number: int) -> None: ...

    async def work() -> None:
        ended = await asyncio.gather(*(answer.adelay(number // 2) for number in range(20)), return_exceptions=True)
        refused = [type(each) for each in ended[1::2]]
        assert refused == [LaneFull] * 10
        assert len(_waiting(raw)) == 10

    _run(app, work)


class Refusals:
    """Refuse some of the scripts that enqueue.

    Attributes:
        errors: Their numbers, and with what. None: not yet.
        wrong: The argument of a call that is always refused.
        tried: How many messages each of them had, and whether it was refused.
    """

    def __init__(self) -> None:
        self.errors: Mapping[int, str] | None = None
        self.wrong = 0
        self.tried: list[tuple[int, bool]] = []

    def __call__(self, words: list[bytes]) -> str | None:
        if self.errors is None or words[0].upper() not in (b"EVAL", b"EVALSHA"):
            return None
        bodies = [word for word in words[5:] if b"answer" in word]
        is_wrong = self.wrong and any(decode(word).args == [self.wrong] for word in bodies)
        error = self.errors.get(len(self.tried)) or ("REDISQ_ARGUMENT one call is wrong" if is_wrong else None)
        self.tried.append((len(bodies), error is not None))
        return error


Refused = tuple[RedisQ, Task[[int], Any], Refusals]


@pytest.fixture
def refused(redis_server: RedisServer) -> Iterator[Refused]:
    """An app behind a proxy that refuses some of its calls. Redis knows the script already."""
    refusals = Refusals()
    proxy = RefusingProxy(redis_server.port, refusals)
    app = RedisQ("bot", url=f"redis://127.0.0.1:{proxy.port}", timeout=20)
    answer = app.task(name="answer", queue="chat_api")(_answer)
    answer.options(queue="others").delay(0)
    yield app, answer, refusals
    app.close()
    proxy.close()


def _answer(number: int) -> None: ...


BUSY = "BUSY Redis is busy running a script"


@pytest.mark.parametrize("errors", [{0: BUSY}, {1: BUSY}, {2: BUSY, 3: "LOADING Redis is loading the dataset in memory"}])
@pytest.mark.parametrize("way", ["delay_many", "adelay_many"])
def test_a_large_call_keeps_its_order_when_redis_refuses_one_part_for_the_moment(
    raw: redis.Redis, refused: Refused, errors: Mapping[int, str], way: str
) -> None:
    app, answer, refusals = refused
    refusals.errors = errors
    calls = [(number,) for number in range(4_500)]

    async def work() -> None:
        jobs = answer.delay_many(calls) if way == "delay_many" else await answer.adelay_many(calls)
        assert _waiting(raw) == [job.id for job in jobs]

    _run(app, work)
    assert [size for size, is_refused in refusals.tried if not is_refused] == [1000] * 4 + [500]


@pytest.mark.parametrize("busy", [None, *range(1, 10)])
def test_calls_keep_their_order_when_redis_refuses_one_of_them_and_another_for_the_moment(
    raw: redis.Redis, refused: Refused, busy: int | None
) -> None:
    app, answer, refusals = refused
    # The first call leaves at once. The others share a script, which is refused, and are sent again.
    refusals.wrong = 13
    refusals.errors = {} if busy is None else {busy: BUSY}

    async def work() -> None:
        ended = await asyncio.gather(*(answer.adelay(number) for number in range(20)), return_exceptions=True)
        assert [at for at, each in enumerate(ended) if isinstance(each, BaseException)] == [13]
        assert _waiting(raw) == [job.id for job in ended if not isinstance(job, BaseException)]

    _run(app, work)
    assert refusals.tried[1] == (19, True)
    # The calls behind the refused one do not pay a round trip each.
    assert len(refusals.tried) < 14


def test_a_full_server_refuses_calls_that_share_a_script_once(raw: redis.Redis, refused: Refused) -> None:
    app, answer, refusals = refused
    refusals.errors = dict.fromkeys(range(1, 99), "OOM command not allowed when used memory > 'maxmemory'.")

    async def work() -> None:
        ended = await asyncio.gather(*(answer.adelay(number) for number in range(20)), return_exceptions=True)
        assert [type(each) for each in ended[1:]] == [BrokerFull] * 19

    _run(app, work)
    assert refusals.tried == [(1, False), (19, True)]
    assert len(_waiting(raw)) == 1


def test_each_call_waits_for_its_own_timeout_while_redis_is_away(app: RedisQ) -> None:
    away = app.at(url="redis://127.0.0.1:1")
    away._timeout = 0.5

    @away.task(queue="chat_api")
    async def answer(number: int) -> None: ...

    async def work() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ended = await asyncio.gather(*(answer.adelay(number) for number in range(100)), return_exceptions=True)
        assert {type(each) for each in ended} == {BrokerUnavailable}
        # The calls do not wait one after the other.
        assert loop.time() - begun < 20

    _run(away, work)


def test_a_loop_that_ends_closes_its_connections(app: RedisQ, answer: Send, raw: redis.Redis) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        asyncio.run(answer.adelay(number))
    assert len(_waiting(raw)) == 50
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_child_that_is_forked_while_threads_connect_can_send(redis_url: str, raw: redis.Redis) -> None:
    for _ in range(10):
        app = RedisQ("bot", url=redis_url)

        @app.task(name="answer", queue="chat_api")
        async def answer(number: int) -> None: ...

        threads = [threading.Thread(target=answer.delay, args=(1,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        child = os.fork()
        if child == 0:
            # A lock that nobody releases ends the child by this signal.
            signal.alarm(20)
            with suppress(BaseException):
                answer.delay(2)
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        for thread in threads:
            thread.join()
        app.close()
        assert status == 0
    assert len(_waiting(raw)) == 130


CARELESS = """
import asyncio, gc, os
from redisq import RedisQ

app = RedisQ("bot")

@app.task(queue="chat_api")
async def answer(number: int) -> None: ...

before = len(os.listdir("/proc/self/fd"))
for number in range(30):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(answer.adelay(number))
    loop.close()
asyncio.run(answer.adelay(30))
gc.collect()
print(len(os.listdir("/proc/self/fd")) - before)
"""


def test_loops_that_are_closed_without_cleanup_leave_no_connections(redis_url: str, raw: redis.Redis) -> None:
    """Apart, and without warnings: Python has one for each transport that only its closed loop could close."""
    script = [sys.executable, "-W", "ignore", "-c", CARELESS]
    ended = subprocess.run(script, env={**os.environ, "REDISQ_URL": redis_url}, capture_output=True, text=True, check=True)
    assert ended.stdout == "0\n"
    assert len(_waiting(raw)) == 31


def test_a_child_that_is_forked_in_a_running_loop_leaves_its_parent_s_connections_alone(
    app: RedisQ, answer: Send, raw: redis.Redis
) -> None:
    """Parent and child share the loop's selector in the system: what the child takes out of it, the parent does not hear."""

    async def work() -> None:
        await answer.adelay(0)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with suppress(BaseException):
                asyncio.events._set_running_loop(None)
                for number in range(3):
                    asyncio.run(answer.adelay(number))
                    gc.collect()
                os._exit(0)
            os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        async with asyncio.timeout(4):
            await answer.adelay(1)
        assert len(_waiting(raw)) == 5

    _run(app, work)
