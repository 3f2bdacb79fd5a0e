"""`Producer.batch()`: publications that leave together, those of a queue in their order."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import BatchPublishError

from redisq.broker.commands import Command, trips
from redisq.broker.connector import Connector
from redisq.errors import BrokerError

__all__ = ["PublishBatch"]


class PublishBatch:
    """Gathers the commands of publications, routed when they are made.

    Args:
        channel: Makes them.
        connector: Carries them.
        max_size: Sent when there are so many.
    """

    def __init__(self, channel: Any, connector: Connector, max_size: int) -> None:
        #: `Producer.batch()` asks whose it is.
        self.channel = channel
        self._connector = connector
        self._max_size = max_size
        self._gathered: list[Command[Any]] = []
        self._said: set[tuple[Any, ...]] = set()
        self._ended = ""
        self._failed: Exception | None = None

    def publish(self, message: dict[str, Any], exchange: str = "", routing_key: str = "", **kwargs: Any) -> None:
        """Gather one publication."""
        self._check()
        more = self.channel.publication(message, exchange, routing_key)
        # Rules and bindings that were said are not said again.
        more = [command for command in more if (command.script, command.keys, command.args) not in self._said]
        if self._gathered and len(self._gathered) + len(more) > self._max_size:
            self.flush()
        self._gathered += more
        self._said.update((command.script, command.keys, command.args) for command in more if command.script in ("bind", "declare"))
        if len(self._gathered) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            BatchPublishError: Some of it, or all, may not have arrived.
        """
        self._check()
        gathered, self._gathered = self._gathered, []
        self._said.clear()
        if not gathered:
            return
        try:
            for commands in trips(gathered):
                for result in self._connector.execute_many(commands):
                    if isinstance(result, BrokerError):
                        raise result
        except BrokerError as error:
            self._failed = error
            raise BatchPublishError(f"redisq publish batch failed; delivery is uncertain: {error}") from error

    def discard(self) -> None:
        """Forget what was not sent."""
        self._ended = self._ended or "aborted"
        self._gathered = []

    def close(self) -> None:
        """Take no more."""
        self._ended = "closed"

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError(f"redisq publish batch is {self._ended}")
        if self._failed is not None:
            raise BatchPublishError("redisq publish batch cannot be used after a failure") from self._failed
