"""Exchanges and bindings: this connection's own, and those that others left in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kombu.transport.virtual.exchange import TopicExchange

from redisq.broker import exchanges
from redisq.broker.commands import MAX_BATCH, Command, declare
from redisq.broker.connector import Connector
from redisq.broker.keys import ExchangeKeys
from redisq.errors import AccessDenied, BrokerError
from redisq.kombu.names import Names
from redisq.kombu.options import Options
from redisq.kombu.steps import run

__all__ = ["Routing"]

#: Seconds that what is not durable outlives its last user.
TRANSIENT = 300.0
#: Seconds between two rounds of prolonging, at least.
_SOONEST = 0.1

#: What a route begins with that says what its exchange is, or that is a binding.
_TYPE, _BIND = b"type:", b"bind:"

_TOPIC = TopicExchange(None)


class Routing:
    """Writes what is declared and bound here, reads what was elsewhere.

    Args:
        connector: Carries the calls.
        names: From kombu's names to keys.
        options: The transport's options.
    """

    def __init__(self, connector: Connector, names: Names, options: Options) -> None:
        self._connector = connector
        self._names = names
        self._options = options
        self._rules: dict[str, dict[str, Any]] = {}
        self._unsaid: dict[str, dict[str, Any]] = {}
        # Queue that expires, or whose bindings do -> when that is to be said again, monotonic.
        self._said_again: dict[str, float] = {}
        # What was said from here: route -> its queue, if it is a binding's, and for how many microseconds; 0: for good.
        self._routes: dict[tuple[ExchangeKeys, bytes], tuple[str, int]] = {}
        # What others bound for a time, when an exchange was last read: queue -> microseconds.
        self._passing: dict[ExchangeKeys, dict[str, int]] = {}
        self._forgotten = False
        # Queues that are consumed from here: with their bindings, they are prolonged by `refresh`.
        self._consumed: set[str] = set()
        self._auto_delete: set[str] = set()

    # Queues

    def set_rules(self, queue: str, arguments: dict[str, Any], *, auto_delete: bool) -> None:
        """A queue was declared. Redis is told when it is first used: a queue of a fanout exchange never is.

        One that is deleted with its last consumer lives for good until it has one.
        """
        if auto_delete:
            self._auto_delete.add(queue)
        ttl = _positive(arguments.get("x-expires")) or self._rules.get(queue, {}).get("ttl", 0)
        rules = {
            "ttl": round(ttl),
            "message_ttl": round(_positive(arguments.get("x-message-ttl")) * 1000),
            "max_length": round(_positive(arguments.get("x-max-length"))),
            "keep_expired": self._options.dead_letter_expired,
        }
        if rules == self._rules.get(queue):
            return
        self._rules[queue] = rules
        if any(rules.values()):
            self._unsaid[queue] = rules

    def say_rules(self, queue: str) -> list[Command[Any]]:
        """What has to be sent before the next use of a queue, until Redis has answered it."""
        rules = self._unsaid.get(queue)
        bindings: list[Command[Any]] = []
        # One that expires may have done so since: who uses it again makes it anew.
        if self._said_again.get(queue, float("inf")) <= time.monotonic():
            rules = rules or self._rules.get(queue)
            bindings = self._bindings(queue)
        if rules is None:
            return []
        return [replace(declare(self._names.queue(queue), **rules), parse=lambda reply: self._said(queue, rules, reply)), *bindings]

    def _said(self, queue: str, rules: dict[str, Any], reply: Any) -> int:
        if self._unsaid.get(queue) is rules:
            self._unsaid.pop(queue, None)
        if queue in self._rules and (ttl := self._ttl(queue)):
            self._said_again[queue] = time.monotonic() + ttl / 2_000_000
        return int(reply)

    def _bindings(self, queue: str) -> list[Command[Any]]:
        return [
            exchanges.bind(keys, [(route, keep)])
            for (keys, route), (owner, keep) in list(self._routes.items())
            if owner == queue and keep
        ]

    def _ttl(self, queue: str) -> int:
        """Microseconds after which a queue or its bindings go when nobody uses them; 0: never."""
        ttl: int = self._rules.get(queue, {}).get("ttl", 0) * 1000
        return ttl or (round(TRANSIENT * 1_000_000) if queue in self._auto_delete else 0)

    def say_passing(self, exchange: str, queue: str) -> list[Command[Any]]:
        """What has to be sent before a message goes to a queue that others bound for a time, and may have deleted just now.

        The message would make it anew, and for good.
        """
        if queue in self._rules:
            return []
        left = self._passing.get(self._names.exchange(exchange), {}).get(queue)
        return [declare(self._names.queue(queue), ttl=-(-left // 1000), if_new=True)] if left else []

    def is_passing(self, queue: str) -> bool:
        """Whether the queue was declared here, and goes when nobody uses it."""
        return bool(self._ttl(queue))

    def knows(self, queue: str) -> bool:
        """Whether the queue was declared here."""
        return queue in self._rules

    def forget_queue(self, queue: str) -> None:
        """It was deleted."""
        self._said_again.pop(queue, None)
        self._rules.pop(queue, None)
        self._unsaid.pop(queue, None)
        self._consumed.discard(queue)
        self._auto_delete.discard(queue)
        for route in [route for route, (owner, _) in list(self._routes.items()) if owner == queue]:
            self._routes.pop(route, None)

    def consume(self, queue: str) -> None:
        """Somebody consumes from a queue here: it is in use."""
        self._consumed.add(queue)
        rules = self._rules.get(queue)
        if rules and not rules["ttl"] and queue in self._auto_delete:
            self._rules[queue] = self._unsaid[queue] = {**rules, "ttl": round(TRANSIENT * 1000)}

    def cancel(self, queue: str) -> None:
        """Nobody does any more."""
        self._consumed.discard(queue)

    # Exchanges

    def declare(self, exchange: str, kind: str, *, durable: bool) -> None:
        """Tell others what an exchange is."""
        self._bind(exchange, _TYPE + kind.encode(), "", 0 if durable else round(TRANSIENT * 1_000_000))

    def bind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Bind, for good, or for as long as the queue lives."""
        ttl = self._ttl(queue)
        self._bind(exchange, _binding(queue, routing_key), queue, ttl)
        if ttl:
            self._said_again.setdefault(queue, time.monotonic() + ttl / 2_000_000)

    def _bind(self, exchange: str, route: bytes, owner: str, keep: int) -> None:
        keys = self._names.exchange(exchange)
        self._connector.execute(exchanges.bind(keys, [(route, keep)]))
        self._routes[keys, route] = owner, keep

    def unbind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Take a binding out."""
        keys, route = self._names.exchange(exchange), _binding(queue, routing_key)
        self._routes.pop((keys, route), None)
        self._connector.execute(exchanges.unbind(keys, [route]))

    def unbind_all(self, queue: str, known: Iterable[str]) -> None:
        """A queue is deleted: take out its bindings, who ever made them.

        Of one that was not declared here nobody can say where it is bound, so all exchanges are looked at.
        """
        found = {self._names.exchange(exchange) for exchange in known}
        if queue not in self._rules:
            with suppress(AccessDenied):
                found.update(run(exchanges.known_exchanges(self._names.namespace), self._connector))
        several = sorted(found, key=lambda keys: keys.prefix)
        tables = self._connector.execute_many([exchanges.routes(keys) for keys in several])
        for keys, table in zip(several, tables, strict=True):
            if not isinstance(table, BrokerError):
                self._unbind(keys, [route for route in table if _bound(route)[1] == queue])

    def delete(self, exchange: str) -> None:
        """Take everything out."""
        keys = self._names.exchange(exchange)
        self._unbind(keys, list(self._connector.execute(exchanges.routes(keys))))
        for route in [route for route in self._routes if route[0] == keys]:
            self._routes.pop(route, None)
        self._passing.pop(keys, None)

    def _unbind(self, keys: ExchangeKeys, routes: Sequence[bytes]) -> None:
        for at in range(0, len(routes), MAX_BATCH):
            self._connector.execute(exchanges.unbind(keys, routes[at : at + MAX_BATCH]))

    def read(self, exchange: str) -> tuple[str | None, list[tuple[str, str | None, str]]]:
        """What an exchange is, if anybody said so, and its table, as kombu has it: (routing key, pattern, queue)."""
        kind, table, passing = None, [], {}
        keys = self._names.exchange(exchange)
        for route, left in self._connector.execute(exchanges.routes(keys)).items():
            routing_key, queue = _bound(route)
            if queue is not None:
                table.append((routing_key, _TOPIC.key_to_pattern(routing_key), queue))
                if left:
                    passing[queue] = left
            elif route.startswith(_TYPE):
                kind = route.removeprefix(_TYPE).decode()
        self._passing[keys] = passing
        return kind, table

    def say_all_again(self) -> None:
        """The server was away, and may have come back without its data: the next `refresh` tells it all that was said."""
        self._forgotten = True

    def refresh(self, connector: Connector) -> float:
        """Prolong what lives only while somebody uses it. Called by the keeper, in its thread. Gives when again, in seconds."""
        commands: list[Command[Any]] = []
        shortest = TRANSIENT * 1_000_000
        consumed = set(self._consumed)
        forgotten, self._forgotten = self._forgotten, False
        try:
            for queue, rules in list(self._rules.items()):
                ttl = rules["ttl"] * 1000
                if (queue in consumed and ttl) or (forgotten and not ttl and any(rules.values())):
                    commands.append(declare(self._names.queue(queue), **rules))
                    shortest = min(shortest, ttl or shortest)
            for (keys, route), (owner, keep) in list(self._routes.items()):
                if (keep and (not owner or owner in consumed)) or (forgotten and not keep):
                    commands.append(exchanges.bind(keys, [(route, keep)]))
                    shortest = min(shortest, keep or shortest)
            if commands:
                connector.execute_many(commands)
        except BrokerError:
            self._forgotten = self._forgotten or forgotten
            raise
        return max(shortest / 3_000_000, _SOONEST)


def _binding(queue: str, routing_key: str) -> bytes:
    return _BIND + json.dumps([routing_key, queue]).encode()


def _bound(route: bytes) -> tuple[str, str | None]:
    """The routing key and the queue of a binding; no queue: it is none."""
    if not route.startswith(_BIND):
        return "", None
    routing_key, queue = json.loads(route.removeprefix(_BIND))
    return routing_key, queue


def _positive(value: Any) -> float:
    try:
        return max(float(value), 0.0)
    except (TypeError, ValueError):
        return 0.0
