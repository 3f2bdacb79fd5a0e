"""Routes of an exchange: entered for a time or for good, read with what is left of it."""

from __future__ import annotations

from redisq.broker import exchanges
from redisq.broker.keys import ExchangeKeys
from redisq.kombu.steps import run
from tests.faces import SECOND, Broker

EXCHANGE = ExchangeKeys("x")


def _bind(broker: Broker, *routes: tuple[bytes, int]) -> None:
    broker.do(exchanges.bind(EXCHANGE, routes))


def test_a_route_is_read_with_what_is_left_of_it(broker: Broker) -> None:
    _bind(broker, (b"always", 0), (b"a while", 60 * SECOND))
    read = broker.do(exchanges.routes(EXCHANGE))
    assert read[b"always"] == 0
    assert 59 * SECOND < read[b"a while"] <= 60 * SECOND


def test_a_route_is_prolonged_and_never_shortened(broker: Broker) -> None:
    _bind(broker, (b"always", 0), (b"a while", 60 * SECOND))
    _bind(broker, (b"always", SECOND), (b"a while", SECOND))
    read = broker.do(exchanges.routes(EXCHANGE))
    assert read[b"always"] == 0
    assert read[b"a while"] > 59 * SECOND


def test_a_route_that_is_taken_out_is_gone(broker: Broker) -> None:
    _bind(broker, (b"one", 0), (b"two", 0))
    broker.do(exchanges.unbind(EXCHANGE, [b"one"]))
    assert broker.do(exchanges.routes(EXCHANGE)) == {b"two": 0}


def test_exchanges_are_found_by_their_routes_in_their_namespace_alone(broker: Broker) -> None:
    others = [ExchangeKeys("y"), ExchangeKeys("x", "app"), ExchangeKeys("z", "app")]
    for keys in (EXCHANGE, *others):
        broker.do(exchanges.bind(keys, [(b"type:topic", 0)]))
    assert run(exchanges.known_exchanges(""), broker.other) == [EXCHANGE, others[0]]
    assert run(exchanges.known_exchanges("app"), broker.other) == others[1:]
