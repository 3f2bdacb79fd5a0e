"""What the worker holds: the deliveries under its leases."""

from __future__ import annotations

from collections.abc import Callable

from redisq.broker.keys import QueueKeys
from redisq.message import Delivery

__all__ = ["Held"]


class Held:
    """One delivery from its claim to the answer of its settlement.

    Attributes:
        keys: Its queue.
        delivery: The message and its fence.
        until: Monotonic seconds after which its lease is not extended any more; None: no end.
        settled: Its settlement was handed in: it must not be settled again.
        lost: Its lease is another's or nobody's.
        then: Acknowledged early: run this when Redis has taken the ack.
        leased: False from then on: it only takes a slot.
        over: Its handler has ended.
        task: The task's name, once the message is read.
        pool: Which of the worker's pools it counts for (`rooms.py`).
        told_lost: The middleware knows that it is lost.
    """

    __slots__ = ("delivery", "keys", "leased", "lost", "over", "pool", "settled", "task", "then", "told_lost", "until")

    def __init__(self, keys: QueueKeys, delivery: Delivery) -> None:
        self.keys = keys
        self.delivery = delivery
        self.until: float | None = None
        self.settled = False
        self.lost = False
        self.then: Callable[[], None] | None = None
        self.leased = True
        self.over = False
        self.task: str | None = None
        self.pool = 0
        self.told_lost = False
