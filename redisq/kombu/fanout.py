"""Fanout: each exchange is a stream; a queue bound to it reads on from where the stream was when it was bound."""

from __future__ import annotations

from typing import Any

from redisq.broker import exchanges
from redisq.broker.commands import Command
from redisq.broker.connector import Connector
from redisq.broker.keys import ExchangeKeys
from redisq.kombu.names import Names
from redisq.kombu.options import Options

__all__ = ["Fanout"]

#: Messages that one read brings at most.
_BATCH = 100


class Fanout:
    """The fanout queues of one connection. They exist nowhere else.

    Args:
        connector: Carries the calls.
        names: From kombu's names to keys.
        options: The transport's options.
    """

    def __init__(self, connector: Connector, names: Names, options: Options) -> None:
        self._connector = connector
        self._names = names
        self._options = options
        self._places: dict[str, dict[ExchangeKeys, str]] = {}

    def __contains__(self, queue: str) -> bool:
        return queue in self._places

    def bind(self, queue: str, exchange: str) -> None:
        """From now on the queue gets what is published."""
        keys = self._names.exchange(exchange)
        places = self._places.get(queue, {})
        if keys not in places:
            self._places[queue] = {**places, keys: self._connector.execute(exchanges.last_broadcast(keys))}

    def unbind(self, queue: str, exchange: str) -> None:
        """No longer. A queue that is bound to no fanout exchange is one like others."""
        left = {keys: place for keys, place in self._places.get(queue, {}).items() if keys != self._names.exchange(exchange)}
        if left:
            self._places[queue] = left
        else:
            self._places.pop(queue, None)

    def forget(self, queue: str) -> None:
        """The queue was deleted."""
        self._places.pop(queue, None)

    def publish(self, exchange: str, body: bytes) -> Command[Any]:
        """The command that publishes."""
        options = self._options
        return exchanges.broadcast(
            self._names.exchange(exchange), body, length=options.fanout_max_length, age=round(options.fanout_max_age * 1_000_000)
        )

    def streams(self, queues: list[str]) -> tuple[str, ...]:
        """Which streams these queues read."""
        return tuple(sorted({keys.stream for queue in queues for keys in self._places.get(queue, ())}))

    def listen(self, queues: list[str], block_ms: int | None) -> Command[dict[str, list[tuple[str, bytes]]]] | None:
        """The command that reads what is new for these queues; None when they are bound to nothing."""
        lowest: dict[ExchangeKeys, str] = {}
        for queue in queues:
            for keys, place in self._places.get(queue, {}).items():
                if keys not in lowest or _order(place) < _order(lowest[keys]):
                    lowest[keys] = place
        return exchanges.listen(lowest, limit=_BATCH, block_ms=block_ms) if lowest else None

    def sort(self, queues: list[str], heard: dict[str, list[tuple[str, bytes]]]) -> list[tuple[str, bytes]]:
        """Whose each message is: (queue, body)*, each once."""
        given: list[tuple[str, bytes]] = []
        for queue in queues:
            places = self._places.get(queue, {})
            for keys in places:
                for place, body in heard.get(keys.stream, ()):
                    if _order(place) > _order(places[keys]):
                        places[keys] = place
                        if body:
                            given.append((queue, body))
        return given

    def get(self, queue: str) -> bytes | None:
        """Read one message, without waiting."""
        places = self._places.get(queue, {})
        for keys, place in places.items():
            heard = self._connector.execute(exchanges.listen({keys: place}, limit=1, block_ms=None))
            for entries in heard.values():
                for new, body in entries:
                    places[keys] = new
                    if body:
                        return body
        return None


def _order(place: str) -> tuple[int, int]:
    first, _, second = place.partition("-")
    return int(first), int(second or 0)
