"""Who begins next, and what Redis is told of those that wait. No Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from redisq.broker.keys import QueueKeys
from redisq.errors import QueueConflict
from redisq.message import Delivery, Meta
from redisq.worker.held import Held
from redisq.worker.run import Run
from redisq.worker.turns import MOMENT, Turns

KEYS, OTHER = QueueKeys("q"), QueueKeys("r")


class Item(NamedTuple):
    run: Run


class Pool:
    """Notes what begins in it, and what waits in it."""

    def __init__(self, size: int, takes_ahead: bool = False) -> None:
        self.size = size
        self.takes_ahead = takes_ahead
        self.began: list[str] = []
        self.running: list[str] = []
        self.ahead: list[Item] = []
        self.broken: set[str] = set()

    @property
    def room(self) -> int:
        return self.size - len(self.running) - len(self.ahead)

    def start(self, item: Item) -> None:
        ident = item.run.held.delivery.id
        if ident in self.broken:
            raise RuntimeError("no more threads")
        if len(self.running) < self.size:
            self.running.append(ident)
            self.began.append(ident)
        else:
            assert self.takes_ahead, "there was no room"
            self.ahead.append(item)

    def take_back(self) -> list[Item]:
        items, self.ahead = self.ahead, []
        return items

    def end(self) -> None:
        """The handler that has run for longest ends."""
        del self.running[0]
        if self.ahead:
            self.start(self.ahead.pop(0))


class Redis:
    """Notes what it is told; answers at once, or when the test lets it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str], list[str]]] = []
        self.verdicts: dict[str, str] = {}
        self.refuses: set[str] = set()
        self.breaks = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def execute_many(self, commands: list[Any]) -> list[Any]:
        for command in commands:
            count, *flat = command.args
            ids = flat[::2]
            assert command.script == "begin"
            assert set(flat[1::2]) == {7}
            self.told.append((command.keys.queue, ids[:count], ids[count:]))
        await self.answers.wait()
        if self.breaks:
            raise OSError("broken")
        refused = QueueConflict("another program's")
        return [refused if command.keys.queue in self.refuses else self.verdicts for command in commands]

    def noted(self) -> list[str]:
        return [ident for _, waits, _ in self.told for ident in waits]

    def asked(self) -> list[str]:
        return [ident for _, _, begins in self.told for ident in begins]


class Stage:
    """The turns with all around them."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.heard: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []
        self.runs: dict[str, Run] = {}
        tell = {word: lambda held, word=word: self._hear(word, held) for word in ("lost", "cancel")}
        redis: Any = self.redis
        log = logging.getLogger("test")
        self.turns = Turns(
            redis, tell, lambda held, why: self.failed.append((held.delivery.id, why)), asyncio.get_running_loop(), log
        )

    def _hear(self, word: str, held: Held) -> None:
        self.heard.append((word, held.delivery.id))
        assert self.turns.withdraw(self.runs[held.delivery.id])

    def wait(self, pool: Pool, *ids: str, crashes: int = 0, leased: bool = True, keys: QueueKeys = KEYS) -> None:
        for ident in ids:
            held = Held(keys, Delivery(ident, 7, b"", Meta(crashes=crashes)))
            held.leased = leased
            nothing: Any = None
            self.runs[ident] = Run(held, nothing, "w", nothing)
            self.turns.wait(pool, Item(self.runs[ident]))

    def end(self, pool: Pool) -> None:
        pool.end()
        self.turns.look()

    def withdraw(self, ident: str) -> bool:
        return self.turns.withdraw(self.runs[ident])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def next_turn() -> None:
    """Until the loop has done all that it was to do."""
    for _ in range(5):
        await asyncio.sleep(0)


Test = Callable[[Stage], Coroutine[Any, Any, None]]


def staged(test: Test) -> Callable[[], None]:
    """Run it in a loop."""

    async def play() -> None:
        stage = Stage()
        await test(stage)
        await stage.turns.abort()

    def run() -> None:
        asyncio.run(play())

    run.__name__ = test.__name__
    return run


@staged
async def test_what_has_room_begins_and_redis_hears_nothing(stage: Stage) -> None:
    pool = Pool(2)
    stage.wait(pool, "a", "b")
    await next_turn()
    assert pool.began == ["a", "b"]
    assert stage.redis.told == []


@staged
async def test_what_has_room_within_the_moment_begins_and_redis_hears_nothing(stage: Stage) -> None:
    pool = Pool(1)
    stage.wait(pool, "a", "b", "c")
    for _ in range(3):
        await next_turn()
        stage.end(pool)
    assert pool.began == ["a", "b", "c"]
    assert stage.redis.told == []


@staged
async def test_a_pool_that_can_begin_the_next_by_itself_does_so_within_the_moment(stage: Stage) -> None:
    pool = Pool(1, takes_ahead=True)
    stage.wait(pool, "a", "b", "c")
    await next_turn()
    pool.end()  # and nobody looks
    assert pool.began == ["a", "b"]
    assert stage.redis.told == []


@pytest.mark.parametrize("takes_ahead", [False, True])
def test_what_waits_longer_is_noted_and_begins_in_order_when_redis_has_answered(takes_ahead: bool) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool = Pool(1, takes_ahead)
        stage.wait(pool, "a", "b", "c")
        await until(stage.redis.noted)
        assert stage.redis.told == [("q", ["b", "c"], [])]
        await next_turn()
        stage.redis.answers.clear()
        stage.end(pool)
        await next_turn()
        assert stage.redis.asked() == ["b"]
        assert pool.began == ["a"]
        stage.redis.answers.set()
        await until(lambda: pool.began == ["a", "b"])
        stage.end(pool)
        await until(lambda: pool.began == ["a", "b", "c"])
        assert stage.redis.asked() == ["b", "c"]
        assert stage.redis.noted() == ["b", "c"], "each once"

    test()


@staged
async def test_who_comes_later_does_not_overtake(stage: Stage) -> None:
    pool = Pool(1, takes_ahead=True)
    stage.wait(pool, "a", "b")
    await until(stage.redis.noted)
    stage.wait(pool, "c")
    await next_turn()
    assert pool.ahead == []
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b"])
    await next_turn()
    assert [item.run.held.delivery.id for item in pool.ahead] == ["c"], "nobody is in front of it"


@staged
async def test_those_that_begin_now_are_asked_for_in_one_trip(stage: Stage) -> None:
    pool = Pool(2)
    stage.wait(pool, "a", "b", "c", "d")
    stage.wait(pool, "e", keys=OTHER)
    await until(stage.redis.noted)
    await next_turn()
    assert stage.redis.told == [("q", ["c", "d"], []), ("r", ["e"], [])]
    pool.end()
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b", "c", "d"])
    assert stage.redis.told[2:] == [("q", [], ["c", "d"])]


@pytest.mark.parametrize("word", ["lost", "cancel"])
def test_what_is_not_to_begin_is_told_and_the_next_begins(word: str) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool = Pool(1)
        stage.wait(pool, "a", "b", "c", "d")
        stage.redis.verdicts = {"b": word}
        await until(stage.heard.copy)
        stage.redis.verdicts = {"c": word}
        stage.end(pool)
        await until(lambda: pool.began == ["a", "d"])
        assert stage.heard == [(word, "b"), (word, "c")]

    test()


@pytest.mark.parametrize("takes_ahead", [False, True])
def test_what_is_withdrawn_does_not_begin(takes_ahead: bool) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool = Pool(1, takes_ahead)
        stage.wait(pool, "a", "b", "c", "d")
        await next_turn()
        assert stage.withdraw("c")
        assert not stage.withdraw("c")
        assert not stage.withdraw("a")
        await until(stage.redis.noted)
        assert stage.redis.noted() == ["b", "d"]
        await next_turn()
        stage.redis.answers.clear()
        stage.end(pool)
        await until(stage.redis.asked)
        assert stage.withdraw("b"), "while Redis is asked"
        stage.redis.answers.set()
        await until(lambda: pool.began == ["a", "d"])

    test()


@staged
async def test_what_waits_in_a_pool_is_left_there_while_redis_does_not_answer_about_others(stage: Stage) -> None:
    pool, others = Pool(1, takes_ahead=True), Pool(1)
    stage.wait(others, "x", "y")
    await until(stage.redis.noted)
    await next_turn()
    stage.wait(pool, "a", "b")
    await next_turn()
    stage.redis.answers.clear()
    stage.end(others)
    await until(stage.redis.asked)
    moments = asyncio.get_running_loop().time() + 3 * MOMENT
    await until(lambda: asyncio.get_running_loop().time() > moments)
    pool.end()
    assert pool.began == ["a", "b"]
    stage.redis.answers.set()
    await until(lambda: others.began == ["x", "y"])


@staged
async def test_others_begin_though_something_breaks_when_one_is_lost(stage: Stage) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    pool = Pool(1)
    stage.wait(pool, "a", "b", "c")
    stage.redis.verdicts = {"c": "lost"}
    del stage.runs["c"]  # so that to hear of it raises
    await until(errors.copy)
    stage.redis.verdicts = {}
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b"])
    assert isinstance(errors[0], KeyError)


@staged
async def test_what_redis_refuses_to_say_of_is_given_back(stage: Stage) -> None:
    pool = Pool(1)
    stage.wait(pool, "a", "b")
    stage.wait(pool, "c", keys=OTHER)
    await until(stage.redis.noted)
    await next_turn()
    stage.redis.refuses = {"q"}
    stage.end(pool)
    await until(lambda: pool.began == ["a", "c"])
    [(ident, why)] = stage.failed
    assert (ident, "another program's" in why) == ("b", True)


@staged
async def test_when_redis_refuses_the_note_it_is_asked_all_the_same(stage: Stage) -> None:
    pool = Pool(1)
    stage.redis.refuses = {"q"}
    stage.wait(pool, "a", "b")
    await until(stage.redis.noted)
    await next_turn()
    stage.redis.refuses = set()
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b"])
    assert stage.redis.asked() == ["b"]
    assert stage.failed == []


def test_a_broken_trip_gives_back_what_was_to_begin(caplog: pytest.LogCaptureFixture) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool = Pool(1)
        stage.wait(pool, "a", "b")
        await until(stage.redis.noted)
        await next_turn()
        stage.redis.breaks = True
        stage.end(pool)
        await until(stage.failed.copy)
        assert [ident for ident, _ in stage.failed] == ["b"]

    test()
    assert "Could not ask Redis" in caplog.text


@staged
async def test_what_cannot_be_started_is_given_back_and_the_next_begins(stage: Stage) -> None:
    pool = Pool(2)
    pool.broken = {"a"}
    stage.wait(pool, "a", "b")
    await next_turn()
    assert pool.began == ["b"]
    assert stage.failed == [("a", "RuntimeError: no more threads")]


@staged
async def test_what_has_no_lease_is_neither_noted_nor_asked_for(stage: Stage) -> None:
    pool = Pool(1)
    stage.wait(pool, "a")
    stage.wait(pool, "b", leased=False)
    stage.wait(pool, "c")
    await until(stage.redis.noted)
    assert stage.redis.noted() == ["c"]
    await next_turn()
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b"])
    assert stage.redis.asked() == []


@pytest.mark.parametrize("takes_ahead", [False, True])
def test_with_one_that_was_there_when_a_worker_died_nothing_begins_before_all_that_wait_are_noted(takes_ahead: bool) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool, others = Pool(1, takes_ahead), Pool(1)
        stage.wait(others, "x", "y")
        await next_turn()
        stage.redis.answers.clear()
        stage.wait(pool, "a", "b")
        stage.wait(pool, "c", crashes=1)
        await next_turn()
        assert sorted(stage.redis.noted()) == ["b", "c", "y"]
        assert pool.began == pool.ahead == []
        stage.redis.answers.set()
        await until(lambda: pool.began == ["a"])
        assert stage.redis.asked() == [], "it was never noted that it waits"

    test()


@staged
async def test_one_that_was_there_when_a_worker_died_begins_at_once_when_nobody_waits(stage: Stage) -> None:
    pool = Pool(1, takes_ahead=True)
    stage.wait(pool, "a", crashes=1)
    await next_turn()
    assert pool.began == ["a"]
    assert stage.redis.told == []


@staged
async def test_its_turn_comes_when_others_wait_that_came_just_now(stage: Stage) -> None:
    pool = Pool(1)
    stage.wait(pool, "a")
    stage.wait(pool, "b", crashes=1)
    await until(stage.redis.noted)
    await next_turn()
    stage.wait(pool, "c")
    stage.end(pool)
    await until(lambda: pool.began == ["a", "b"])
    assert stage.redis.told[1:] == [("q", ["c"], []), ("q", [], ["b"])], "in one trip"


@staged
async def test_room_is_counted_for_those_that_have_their_turn_soon(stage: Stage) -> None:
    pool = Pool(2)
    assert stage.turns.has_room(pool)
    stage.wait(pool, "a")
    assert stage.turns.has_room(pool)
    stage.wait(pool, "b")
    assert not stage.turns.has_room(pool)
    await next_turn()
    assert not stage.turns.has_room(pool)
    stage.wait(pool, "c")
    await until(stage.redis.noted)
    await next_turn()
    stage.redis.answers.clear()
    stage.end(pool)
    await until(stage.redis.asked)
    assert pool.room == 1
    assert not stage.turns.has_room(pool)


@pytest.mark.parametrize("takes_ahead", [False, True])
def test_once_it_is_closed_nothing_begins(takes_ahead: bool) -> None:
    @staged
    async def test(stage: Stage) -> None:
        pool = Pool(1, takes_ahead)
        stage.wait(pool, "a", "b", "c")
        await until(stage.redis.noted)
        await next_turn()
        stage.redis.answers.clear()
        stage.end(pool)
        await until(stage.redis.asked)
        stage.turns.close()
        stage.redis.answers.set()
        await next_turn()
        stage.wait(pool, "d")
        await next_turn()
        assert pool.began == ["a"]
        assert pool.ahead == []
        assert stage.failed == [("d", "the worker stops")]
        assert not stage.withdraw("b")

    test()


@staged
async def test_very_many_are_noted_in_calls_that_a_script_takes(stage: Stage) -> None:
    pool = Pool(0, takes_ahead=True)
    stage.wait(pool, *[f"m{number}" for number in range(2500)])
    await until(stage.redis.noted)
    assert [len(waits) for _, waits, _ in stage.redis.told] == [1000, 1000, 500]
