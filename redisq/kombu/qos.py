"""kombu's quality of service: what a channel was given and has not settled, against its prefetch count."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual

from redisq.kombu.held import Held

__all__ = ["QoS"]


class QoS(virtual.QoS):
    """Counts as kombu's does; every end goes through the transport's keeper."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._leases: dict[str, Held] = {}
        # A closed channel has no connection any more; its messages may still be acknowledged.
        self._keeper = channel.connection.session.keeper

    def hold(self, held: Held) -> None:
        """A message of that lease is about to be appended."""
        self._leases[held.tag] = held

    @property
    def asks(self) -> bool:
        """Whether the program decides itself, before every message, as Celery does with `worker_disable_prefetch`."""
        return "can_consume" in self.__dict__

    def credit(self, most: int) -> int:
        """How many messages may be claimed now."""
        if self.asks:
            return 1 if self.can_consume() else 0
        estimate = self.can_consume_max_estimate()
        return most if estimate is None else min(estimate, most)

    def holds_most(self, credit: int) -> bool:
        """Whether more than half of what may be held is: so much more credit comes soon, as acknowledgements."""
        return not self.asks and 0 < 2 * credit < self.prefetch_count

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; once more does nothing, and late is fine while nobody else got the message."""
        self._end(delivery_tag, "ack")

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put back to its place in its queue, which counts against the delivery limit; or make it a dead letter."""
        if requeue:
            options = self.channel.options
            self._end(delivery_tag, "restore", options.most_deliveries, options.requeue_age_us)
        else:
            self._end(delivery_tag, "rejected")
        # Whoever looks next, from here, has to find it so.
        self._keeper.flush()

    def _end(self, delivery_tag: str, how: str, limit: int = 0, age: int = 0) -> None:
        held = self._leases.pop(delivery_tag, None)
        if held is not None:
            self._keeper.end(held, how, limit, age)
        if delivery_tag in self._delivered:
            self._quick_ack(delivery_tag)

    def restore_unacked(self) -> list[Any]:
        """Give back all that was not settled, for free. An ack that comes later still counts, until somebody else has it."""
        self._flush()
        for tag in self._delivered:
            held = self._leases.get(tag)
            if held is not None:
                self._keeper.end(held, "restore")
        self._delivered.clear()
        self._keeper.flush()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """At the end of the channel, or of the program: give back what was not settled, and let the rest arrive."""
        super().restore_unacked_once(stderr)
        self._keeper.flush()

    def forget(self, queue: str) -> None:
        """The queue is deleted."""
        for tag in [tag for tag, held in self._leases.items() if held.queue == queue]:
            self._leases.pop(tag, None)
            self._quick_ack(tag)
