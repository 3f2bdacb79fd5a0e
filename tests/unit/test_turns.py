"""Who begins next in a pool of threads or processes, and what becomes of those that have to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from redisq.broker.keys import QueueKeys
from redisq.message import Delivery
from redisq.worker.held import Held
from redisq.worker.run import Run
from redisq.worker.turns import MOMENT, Turns

KEYS = QueueKeys("q")
POOLS = pytest.mark.parametrize("takes_ahead", [False, True], ids=["processes", "threads"])


class Item(NamedTuple):
    run: Run


class Pool:
    """Runs so many at a time; ends one when the test says so."""

    def __init__(self, size: int, takes_ahead: bool = False) -> None:
        self.size = size
        self.takes_ahead = takes_ahead
        self.begun: list[str] = []
        self.running = 0
        self.given: list[Item] = []
        self.breaks: set[str] = set()

    @property
    def room(self) -> int:
        return self.size - self.running - len(self.given)

    def start(self, item: Item) -> None:
        if _id(item) in self.breaks:
            raise RuntimeError("can't start new thread")
        self.given.append(item)
        self._go_on()

    def take_back(self) -> list[Item]:
        taken, self.given = self.given, []
        return taken

    def end(self) -> None:
        self.running -= 1
        self._go_on()

    def _go_on(self) -> None:
        while self.given and self.running < self.size:
            self.begun.append(_id(self.given.pop(0)))
            self.running += 1


def _id(item: Item) -> str:
    return item.run.held.delivery.id


class Stage:
    """The turns with all around them."""

    def __init__(self) -> None:
        self.put_off: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.runs: dict[str, Run] = {}
        self.turns = Turns(
            lambda held: self.put_off.append(held.delivery.id),
            lambda held, why: self.failed.append((held.delivery.id, why)),
            asyncio.get_running_loop(),
        )

    async def wait(self, pool: Pool, *ids: str, leased: bool = True) -> None:
        for ident in ids:
            held = Held(KEYS, Delivery(ident, 7, b""))
            held.leased = leased
            nothing: Any = None
            self.runs[ident] = Run(held, nothing, "w", nothing)
            self.turns.wait(pool, Item(self.runs[ident]))
        await asyncio.sleep(0)

    async def end(self, pool: Pool) -> None:
        pool.end()
        self.turns.look()
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@POOLS
def test_what_has_room_begins_in_the_next_turn(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(2, takes_ahead)
        await stage.wait(pool, "a", "b", "c")
        assert pool.begun == ["a", "b"]
        await stage.end(pool)
        assert pool.begun == ["a", "b", "c"]

    asyncio.run(scenario())


@POOLS
def test_what_waited_for_a_moment_is_given_back_and_what_began_is_not(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        began = time.monotonic()
        await stage.wait(pool, "a", "b", "c")
        await until(lambda: stage.put_off)
        assert stage.put_off == ["b", "c"]
        assert time.monotonic() - began >= MOMENT
        await stage.end(pool)
        assert pool.begun == ["a"]

    asyncio.run(scenario())


@POOLS
def test_who_came_later_waits_for_a_moment_of_its_own(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        await stage.wait(pool, "a", "b")
        stage.runs["b"].came -= 2 * MOMENT
        await stage.wait(pool, "c", "d")
        stage.runs["c"].came = stage.runs["d"].came = asyncio.get_running_loop().time() + 10
        await until(lambda: stage.put_off)
        assert stage.put_off == ["b"]
        await stage.end(pool)
        await stage.end(pool)
        assert pool.begun == ["a", "c", "d"]

    asyncio.run(scenario())


@POOLS
def test_what_has_no_lease_waits_until_there_is_room(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        await stage.wait(pool, "a", "early", leased=False)
        await stage.wait(pool, "c")
        stage.runs["early"].came -= 2 * MOMENT
        stage.runs["c"].came -= 2 * MOMENT
        await until(lambda: stage.put_off)
        assert stage.put_off == ["c"]
        await stage.end(pool)
        assert pool.begun == ["a", "early"]

    asyncio.run(scenario())


@POOLS
def test_what_is_withdrawn_does_not_begin(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        await stage.wait(pool, "a", "b", "c")
        assert stage.turns.withdraw(stage.runs["b"])
        assert not stage.turns.withdraw(stage.runs["b"])
        assert not stage.turns.withdraw(stage.runs["a"])
        await stage.end(pool)
        assert pool.begun == ["a", "c"]

    asyncio.run(scenario())


@POOLS
def test_what_cannot_be_started_is_given_back_and_the_next_begins(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        pool.breaks = {"a"}
        await stage.wait(pool, "a", "b")
        assert stage.failed == [("a", "RuntimeError: can't start new thread")]
        assert pool.begun == ["b"]

    asyncio.run(scenario())


def test_there_is_room_for_as_many_as_would_begin_at_once() -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(2)
        assert stage.turns.has_room(pool)
        await stage.wait(pool, "a")
        assert stage.turns.has_room(pool)
        await stage.wait(pool, "b")
        assert not stage.turns.has_room(pool)
        await stage.wait(pool, "c")
        pool.end()
        assert not stage.turns.has_room(pool), "it is c's"

    asyncio.run(scenario())


@POOLS
def test_once_it_is_closed_nothing_begins(takes_ahead: bool) -> None:
    async def scenario() -> None:
        stage, pool = Stage(), Pool(1, takes_ahead)
        await stage.wait(pool, "a", "b")
        stage.turns.close()
        await stage.end(pool)
        await stage.wait(pool, "c")
        assert pool.begun == ["a"]
        assert stage.failed == [("c", "the worker stops")]

    asyncio.run(scenario())
