"""What the tests of the kombu transport do with kombu, through its own public interface."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kombu

import redisq.kombu  # noqa: F401 - its import makes the scheme known

Connect = Callable[..., kombu.Connection]


def publish(connection: kombu.Connection, body: Any, queue: str = "q", **options: Any) -> None:
    connection.Producer().publish(body, routing_key=queue, **options)


def get(connection: kombu.Connection, queue: str = "q", **options: Any) -> Any:
    return connection.default_channel.basic_get(queue, **options)


class Sink:
    """A consumer that keeps what it gets."""

    def __init__(self, connection: kombu.Connection, *queues: Any, ack: bool = True, **options: Any) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.ack = ack
        queues = queues or (kombu.Queue("q"),)
        self.consumer = connection.Consumer(queues, callbacks=[self._got], **options)

    def _got(self, body: Any, message: Any) -> None:
        self.messages.append(message)
        if self.ack and not self.consumer.no_ack:
            message.ack()

    @property
    def bodies(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def drain(self, count: int, seconds: float = 10) -> list[Any]:
        wanted = len(self.messages) + count
        deadline = time.monotonic() + seconds
        while len(self.messages) < wanted:
            self.connection.drain_events(timeout=max(deadline - time.monotonic(), 0.001))
        return self.bodies


def waiting(connection: kombu.Connection, queue: str = "q") -> int:
    return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
