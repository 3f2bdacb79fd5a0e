"""One message that a channel holds."""

from __future__ import annotations

from redisq.broker.keys import QueueKeys
from redisq.message import Delivery

__all__ = ["Held"]


class Held:
    """A delivery from its claim to the answer of its settlement.

    Attributes:
        queue: kombu's name of its queue.
        keys: The queue's keys.
        delivery: The message and its fence.
    """

    __slots__ = ("delivery", "keys", "queue")

    def __init__(self, queue: str, keys: QueueKeys, delivery: Delivery) -> None:
        self.queue = queue
        self.keys = keys
        self.delivery = delivery

    @property
    def tag(self) -> str:
        """The delivery tag: a copy of a message in another queue, or another delivery of it, has another."""
        return f"{self.keys.prefix}/{self.delivery.id}/{self.delivery.fence}"
