"""Extend many leases, of several queues, in bounded calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from redisq.broker.commands import MAX_BATCH, extend
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.errors import BrokerError
from redisq.message import Delivery
from redisq.troubles import Troubles

__all__ = ["Leased", "renew"]


class Leased(Protocol):
    """One delivery that somebody holds."""

    @property
    def keys(self) -> QueueKeys:
        """Its queue."""

    @property
    def delivery(self) -> Delivery:
        """The message and its fence."""


L = TypeVar("L", bound=Leased)


def renew(connector: Connector, held: Iterable[L], lease: int, troubles: Troubles) -> Iterator[tuple[L, str]]:
    """Give each a deadline `lease` microseconds from now. Gives those of which there is something to say, with `extend`'s word.

    Of a queue that cannot be reached the troubles are told. The next round tries again, and two rounds fit into what is
    left of a lease.
    """
    by_queue: dict[QueueKeys, list[L]] = {}
    for each in held:
        by_queue.setdefault(each.keys, []).append(each)
    for keys, wanted in by_queue.items():
        for at in range(0, len(wanted), MAX_BATCH):
            some = wanted[at : at + MAX_BATCH]
            try:
                verdicts = connector.execute(extend(keys, [(each.delivery.id, each.delivery.fence) for each in some], lease=lease))
            except BrokerError as error:
                troubles.met(f"extend leases of queue {keys.queue}", error)
            else:
                if troubles:
                    troubles.over(f"extend leases of queue {keys.queue}")
                yield from ((each, verdicts[each.delivery.id]) for each in some if each.delivery.id in verdicts)
