"""One chaos run: a server of its own with an append-only file, workers, a producer, the faults, and the verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import redis

from redisq import RedisQ
from redisq.testing.leaks import check_leaks
from tests.chaos import bot, ledger
from tests.chaos.fleet import Fleet
from tests.chaos.producer import Producer
from tests.chaos.verdict import Fault, Verdict, judge
from tests.integration.processes import WorkerProcess, wait_until
from tests.servers import RedisServer
from tests.wire import CuttingProxy

__all__ = ["Stage"]

QUEUE = bot.app.keys(bot.QUEUE)


class Stage:
    """Everything that one scenario needs.

    Args:
        folder: For logs and ledger.
        seed: Of all that is random.
        lease: Seconds.
        options: Of `redisq worker`.
        proxied: The workers reach the server through `proxy`.
        environment: More variables for the workers.
    """

    def __init__(
        self, folder: Path, *options: str, lease: float, seed: int = 42, proxied: bool = False, **environment: str
    ) -> None:
        self.seeded = random.Random(seed)
        self.lease = lease
        self.folder = folder
        self.faults: list[Fault] = []
        # Each write is in the file before it is answered: a killed server has lost nothing that it confirmed.
        self.server = RedisServer(None, "--appendfsync", "always", append_only=True).start()
        self.proxy = CuttingProxy(self.server.port)
        url = f"redis://127.0.0.1:{self.proxy.port}" if proxied else self.server.url()
        self.fleet = Fleet(url, folder, lease, options, environment)
        self.app: RedisQ = bot.app.at(url=self.server.url())
        self._book = ledger.Book(folder, "producer")
        self.producer = Producer(self.app, self._book, self.seeded)

    def ask(self, question: Callable[[redis.Redis], int], otherwise: int = 0) -> int:
        """Ask the server; while it is away, `otherwise`."""
        try:
            with self.server.client() as client:
                return question(client)
        except redis.RedisError:
            return otherwise

    def tell(self, order: Callable[[redis.Redis], object]) -> None:
        """Have the server do something."""
        with self.server.client() as client:
            order(client)

    def counted(self, name: str) -> int:
        return self.ask(lambda client: int(client.hget(QUEUE.named("stats"), name) or 0), -1)

    def left(self) -> int:
        """How many messages are in the queue, whatever their state, dead letters apart."""
        return self.ask(lambda client: client.hlen(QUEUE.named("messages")) - client.zcard(QUEUE.named("dlq")), -1)

    def kill_one(self) -> None:
        """A worker at work dies."""
        self.faults.append(self.fleet.kill(self.fleet.one_at_work(self.seeded)))

    def restart_redis(self, how: str, away: float = 0.0) -> None:
        """`how`: stop or kill. It is away for so many seconds at least."""
        began = time.monotonic()
        getattr(self.server, how)()
        time.sleep(away)
        self.server.start()
        # Until it has found Redis again, a worker holds what it could not settle, and is not in the midst of a burst.
        self.fleet.look_again()
        # Its answers may be delayed, and its leases have a grace.
        self.faults.append(Fault("restart", "", began, time.monotonic() + self.lease))

    def note_fault(self, kind: str, worker: WorkerProcess, began: float) -> None:
        self.faults.append(Fault(kind, str(worker.process.pid), began, time.monotonic()))

    def started(self) -> int:
        """How many runs have begun."""
        return sum(entry.kind == "S" for entry in ledger.read(self.folder))

    def running_in(self, worker: WorkerProcess) -> set[int]:
        """The messages that it has begun, and neither ended nor been told to leave."""
        running: set[int] = set()
        for entry in ledger.read(self.folder):
            if entry.writer == str(worker.process.pid):
                (running.add if entry.kind == "S" else running.discard)(entry.number)
        return running

    def ended(self, number: int) -> bool:
        """Whether that message ran to its end."""
        return any(entry.kind == "E" and entry.number == number for entry in ledger.read(self.folder))

    def drain(self, seconds: float) -> float:
        """Wait until all is done; how long that took."""
        began = time.monotonic()
        wait_until(lambda: not self.producer.is_sending, "all is sent", seconds)
        wait_until(lambda: self.left() == 0, "all is done", seconds)
        return time.monotonic() - began

    def verdict(self, name: str) -> Verdict:
        """End it in good order, and judge."""
        assert self.fleet.unasked_exits() == []
        assert set(self.fleet.stop()) == {0}, self.fleet.logs()
        verdict = judge(ledger.read(self.folder), self.faults)
        print(f"{name}: {verdict}")
        with self.server.client() as client:
            for key in ("main", "delayed", "retry", "processing"):
                assert client.zcard(QUEUE.named(key)) == 0, f"left in {key}"
            for key in ("messages", "leases", "meta"):
                assert client.hlen(QUEUE.named(key)) <= client.zcard(QUEUE.named("dlq")), f"left in {key}"
            check_leaks(client)
        assert verdict.lost == []
        assert verdict.strangers == []
        return verdict

    def close(self) -> None:
        """End every process."""
        self.producer.stop()
        self.fleet.close()
        self.app.close()
        self._book.close()
        self.proxy.close()
        self.server.close()
