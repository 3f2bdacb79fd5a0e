"""Carry out the steps of a generator of the broker, blocking."""

from __future__ import annotations

from typing import TypeVar

from redisq.broker.commands import Command
from redisq.broker.connector import Connector
from redisq.broker.queues import Steps

__all__ = ["run"]

T = TypeVar("T")


def run(steps: Steps[T], connector: Connector) -> T:
    """Return what the steps come to."""
    try:
        step = next(steps)
        while True:
            step = steps.send(connector.execute(step) if isinstance(step, Command) else connector.execute_many(step))
    except StopIteration as stop:
        result: T = stop.value
        return result
