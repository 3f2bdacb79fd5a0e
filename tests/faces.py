"""The ways to reach a broker, behind one face: sync or async, on a real server or on fakeredis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fakeredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.retry import Retry

from redisq.broker import commands
from redisq.broker.commands import Claimed, Command, Enqueue, Enqueued, Found, QueueView, Settlement
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.scripts import SCRIPT_NAMES
from redisq.message import Delivery
from tests.clock import START, scripts, set_clock

__all__ = ["FACES", "LEASE", "SECOND", "Broker", "open_face"]

T = TypeVar("T")

SECOND = 1_000_000
LEASE = 30 * SECOND
SCRIPTS = scripts()

#: The four implementations that keep the same promises.
FACES = ("sync", "async", "sync fake", "async fake")


class Broker:
    """One queue through one connector, with the words that the tests use. Time stands still until a test moves it.

    Attributes:
        raw: A bare sync client of the same database, to look and to meddle.
        keys: The queue.
        other: Another process: a connector of its own.
    """

    def __init__(self, run: Callable[[Command[Any]], Any], connector: Any, raw: redis.Redis, keys: QueueKeys) -> None:
        self._run = run
        self._connector = connector
        self.raw = raw
        self.keys = keys
        self.other = Connector(raw, SCRIPTS)
        self.now = START
        self.set_time(START)

    def set_time(self, us: int) -> None:
        self.now = us
        set_clock(self.raw, self.keys.prefix, us)

    def pass_time(self, us: int) -> None:
        self.set_time(self.now + us)

    def pass_time_busily(self, us: int) -> None:
        """Let time pass in a queue that somebody looks after: without a gap (I12)."""
        while us > 0:
            step = min(us, LEASE // 2)
            self.pass_time(step)
            us -= step
            if us > 0:
                self.claim(limit=0)

    def at(self, queue: str, namespace: str = "") -> Broker:
        """Another queue, through the same connector."""
        return Broker(self._run, self._connector, self.raw, QueueKeys(queue, namespace))

    def do(self, command: Command[T]) -> T:
        result: T = self._run(command)
        return result

    def enqueue(self, *ids: str, **options: Any) -> list[str]:
        return self.enqueue_all(*ids, **options).present

    def enqueue_all(self, *ids: str, **options: Any) -> Enqueued:
        return self.do(commands.enqueue(self.keys, [Enqueue(each, f"body of {each}".encode(), **options) for each in ids]))

    def claim(self, limit: int = 100, worker: str = "worker1", lease: int = LEASE, max_crashes: int = 3) -> Claimed:
        return self.do(commands.claim(self.keys, worker=worker, limit=limit, lease=lease, max_crashes=max_crashes))

    def claim_one(self) -> Delivery:
        (delivery,) = self.claim(limit=1).deliveries
        return delivery

    def claimed_ids(self, limit: int = 100) -> list[str]:
        return [delivery.id for delivery in self.claim(limit).deliveries]

    def settle(self, op: str, *deliveries: Delivery, delay: int = 0, reason: str = "failed", text: str = "") -> list[str]:
        return self.settle_many(Settlement(op, each.id, each.fence, delay, reason, text) for each in deliveries)

    def settle_many(self, settlements: Iterable[Settlement], run_time: int = 0) -> list[str]:
        return self.do(commands.settle(self.keys, settlements, run_time))

    def ack(self, *deliveries: Delivery) -> list[str]:
        return self.settle("ack", *deliveries)

    def extend(self, *deliveries: Delivery, lease: int = LEASE) -> dict[str, str]:
        return self.do(commands.extend(self.keys, [(each.id, each.fence) for each in deliveries], lease=lease))

    def find(self, id: str) -> Found | None:
        return self.do(commands.find(self.keys, id))

    def view(self) -> QueueView:
        return self.do(commands.inspect(self.keys))

    def state_of(self, id: str) -> str | None:
        found = self.find(id)
        return found.state if found else None

    def stats(self) -> dict[str, int]:
        return self.view().stats

    def configure(self, field: str, value: str) -> None:
        self.raw.hset(self.keys.named("config"), field, value)

    def took_token(self) -> bool:
        """Whether the hint was there; it is gone now."""
        return self.raw.delete(self.keys.wake) == 1

    def call(self, command: Command[T], caller: str, number: int) -> T:
        """Run a command under a call number of the test's choice."""
        script = SCRIPTS[command.script]
        args = (command.keys.prefix, caller, number, *command.args)
        reply = self.raw.execute_command("EVAL", script.source, len(command.keys.fixed), *command.keys.fixed, *args)
        return command.parse(reply)

    def lose_reply(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """The next call is carried out, but its reply is lost; `meanwhile` happens before the client tries again."""
        wire = self._connector._wire
        roundtrip = wire.roundtrip

        def lose(replies: list[Any]) -> None:
            if any(isinstance(reply, NoScriptError) for reply in replies):
                raise AssertionError("not carried out: load the scripts first")
            wire.roundtrip = roundtrip
            meanwhile()
            raise RedisConnectionError("reply lost")

        async def lose_later(calls: list[tuple[Any, ...]]) -> None:
            lose(await roundtrip(calls))

        for name in SCRIPT_NAMES:
            self.raw.script_load(SCRIPTS[name].source)
        is_async = isinstance(self._connector, AsyncConnector)
        wire.roundtrip = lose_later if is_async else lambda calls: lose(roundtrip(calls))


async def _no_wait(seconds: float) -> None:
    pass


@contextmanager
def open_face(face: str, raw: redis.Redis, keys: QueueKeys) -> Iterator[Broker]:
    """Open one of `FACES`. `raw` is a sync client of the database that it works on."""
    fake = isinstance(raw, fakeredis.FakeRedis)
    where = raw.connection_pool.connection_kwargs
    if face.startswith("sync"):
        client = (
            fakeredis.FakeRedis(server=where["server"], protocol=2)
            if fake
            else redis.Redis(port=where["port"], protocol=2, retry=Retry(NoBackoff(), 0))
        )
        connector = Connector(client, SCRIPTS, sleep=lambda seconds: None)
        yield Broker(connector.execute, connector, raw, keys)
        connector.close()
        return
    with asyncio.Runner() as runner:
        async_client = (
            fakeredis.FakeAsyncRedis(server=where["server"], protocol=2)
            if fake
            else redis.asyncio.Redis(port=where["port"], protocol=2, retry=AsyncRetry(NoBackoff(), 0))
        )
        async_connector = AsyncConnector(async_client, SCRIPTS, sleep=_no_wait)
        yield Broker(lambda command: runner.run(async_connector.execute(command)), async_connector, raw, keys)
        runner.run(async_connector.aclose())
