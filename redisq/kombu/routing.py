"""Exchanges and bindings: this connection's own, and those that others left in Redis."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from kombu.transport.virtual.exchange import TopicExchange

from redisq.broker import exchanges
from redisq.broker.commands import MAX_BATCH, Command, declare
from redisq.broker.connector import Connector
from redisq.broker.keys import ExchangeKeys
from redisq.kombu.names import Names
from redisq.kombu.options import Options

__all__ = ["Routing"]

#: Seconds that what is not durable outlives its last user.
TRANSIENT = 300.0
#: Seconds between two rounds of prolonging, at least.
_SOONEST = 0.1

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
        # Queue that expires -> when its rules are to be said again, monotonic.
        self._said_again: dict[str, float] = {}
        # What lives only while somebody uses it: route -> its queue, if it is a binding's, and microseconds.
        self._routes: dict[tuple[ExchangeKeys, bytes], tuple[str, int]] = {}
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
        # One that expires may have done so since: who uses it again makes it anew.
        if rules is None and self._said_again.get(queue, float("inf")) <= time.monotonic():
            rules = self._rules[queue]
        if rules is None:
            return []
        return [replace(declare(self._names.queue(queue), **rules), parse=lambda reply: self._said(queue, rules, reply))]

    def _said(self, queue: str, rules: dict[str, Any], reply: Any) -> int:
        if self._unsaid.get(queue) is rules:
            self._unsaid.pop(queue, None)
        if rules["ttl"] and queue in self._rules:
            self._said_again[queue] = time.monotonic() + rules["ttl"] / 2000
        return int(reply)

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
        self._bind(exchange, b"type:" + kind.encode(), "", 0 if durable else round(TRANSIENT * 1_000_000))

    def bind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Bind, for good, or for as long as the queue lives."""
        ttl = self._rules.get(queue, {}).get("ttl", 0) * 1000
        if not ttl and queue in self._auto_delete:
            ttl = round(TRANSIENT * 1_000_000)
        self._bind(exchange, _binding(queue, routing_key), queue, ttl)

    def _bind(self, exchange: str, route: bytes, owner: str, keep: int) -> None:
        keys = self._names.exchange(exchange)
        self._connector.execute(exchanges.bind(keys, [(route, keep)]))
        if keep:
            self._routes[keys, route] = owner, keep

    def unbind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Take a binding out."""
        keys, route = self._names.exchange(exchange), _binding(queue, routing_key)
        self._routes.pop((keys, route), None)
        self._connector.execute(exchanges.unbind(keys, [route]))

    def delete(self, exchange: str) -> None:
        """Take everything out."""
        keys = self._names.exchange(exchange)
        while found := self._connector.execute(exchanges.routes(keys))[:MAX_BATCH]:
            self._connector.execute(exchanges.unbind(keys, found))
        for route in [route for route in self._routes if route[0] == keys]:
            self._routes.pop(route, None)

    def read(self, exchange: str) -> tuple[str | None, list[tuple[str, str | None, str]]]:
        """What an exchange is, if anybody said so, and its table, as kombu has it: (routing key, pattern, queue)."""
        kind, table = None, []
        for route in self._connector.execute(exchanges.routes(self._names.exchange(exchange))):
            mark, _, rest = route.partition(b":")
            if mark == b"type":
                kind = rest.decode()
            elif mark == b"bind":
                routing_key, queue = json.loads(rest)
                table.append((routing_key, _TOPIC.key_to_pattern(routing_key), queue))
        return kind, table

    def refresh(self, connector: Connector) -> float:
        """Prolong what lives only while somebody uses it. Called by the keeper, in its thread. Gives when again, in seconds."""
        commands: list[Command[Any]] = []
        shortest = TRANSIENT * 1_000_000
        consumed = set(self._consumed)
        for (keys, route), (owner, keep) in list(self._routes.items()):
            if not owner or owner in consumed:
                commands.append(exchanges.bind(keys, [(route, keep)]))
                shortest = min(shortest, keep)
        for queue in consumed:
            rules = self._rules.get(queue)
            if rules and rules["ttl"]:
                commands.append(declare(self._names.queue(queue), **rules))
                shortest = min(shortest, rules["ttl"] * 1000)
        if commands:
            connector.execute_many(commands)
        return max(shortest / 3_000_000, _SOONEST)


def _binding(queue: str, routing_key: str) -> bytes:
    return b"bind:" + json.dumps([routing_key, queue]).encode()


def _positive(value: Any) -> float:
    try:
        return max(float(value), 0.0)
    except (TypeError, ValueError):
        return 0.0
