"""The producer of a chaos run: keeps the queue filled, and notes what it was told of each message."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

from redisq import RedisQ
from redisq.broker.commands import inspect
from redisq.errors import BrokerError
from tests.chaos import bot
from tests.chaos.ledger import Book

__all__ = ["Producer"]

#: Messages in one call.
BATCH = 50


class Producer:
    """Sends `work` in a thread of its own, and single messages from any.

    Args:
        app: The bot, on the run's server.
        book: Its page of the ledger.
        seeded: Makes the run times.
    """

    def __init__(self, app: RedisQ, book: Book, seeded: random.Random) -> None:
        self._app = app
        self._book = book
        self._seeded = seeded
        self._next = 0
        self._taking = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: None)

    def _take(self, count: int) -> list[int]:
        with self._taking:
            self._next += count
            return list(range(self._next - count, self._next))

    def send(self, milliseconds: Sequence[float]) -> list[int]:
        """Send one message for each run time; the numbers of those that were confirmed."""
        numbers = self._take(len(milliseconds))
        return self._noted(numbers, lambda: self._app.tasks["work"].delay_many(list(zip(numbers, milliseconds, strict=True))))

    def send_first(self, milliseconds: float) -> int:
        """Send one that runs before all others; its number. It has to be confirmed."""
        (number,) = self._take(1)
        assert self._noted([number], lambda: self._app.tasks["work"].options(priority=255).delay(number, milliseconds))
        return number

    def send_pill(self) -> int:
        (number,) = self._take(1)
        self._noted([number], lambda: self._app.tasks["pill"].delay(number))
        return number

    def _noted(self, numbers: list[int], send) -> list[int]:  # type: ignore[no-untyped-def]
        self._book.note("I", *numbers)
        try:
            send()
        except BrokerError:
            self._book.note("U", *numbers)
            return []
        self._book.note("C", *numbers)
        return numbers

    def keep_sending(self, fastest: float, slowest: float, ahead: int, total: int | None = None) -> None:
        """From now on have so many waiting messages of `fastest` to `slowest` ms; so many in total, or until `stop`."""
        self._thread = threading.Thread(target=self._run, args=(fastest, slowest, ahead, total), daemon=True)
        self._thread.start()

    def _run(self, fastest: float, slowest: float, ahead: int, total: int | None) -> None:
        confirmed = 0
        while not self._stopped.is_set() and (total is None or confirmed < total):
            try:
                waiting = self._app.connector.execute(inspect(self._app.keys(bot.QUEUE))).waiting
            except BrokerError:
                continue  # it was tried for as long as the app's timeout
            if waiting >= ahead:
                time.sleep(0.005)  # a pace, not a wait for anything
                continue
            confirmed += len(self.send([self._seeded.uniform(fastest, slowest) for _ in range(BATCH)]))

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_sending(self) -> bool:
        return self._thread.is_alive()
