"""Show that a consumer is there, as redisq's own workers do, so that `redisq workers` lists it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redisq.broker.connector import Connector
from redisq.broker.registry import BEAT, Registry, announce, leave
from redisq.kombu.fanout import Fanout
from redisq.kombu.names import Names
from redisq.kombu.routing import Routing
from redisq.message import new_id

__all__ = ["Presence"]

#: What the queue ends with on which a worker of Celery hears remote control: `celery@host.celery.pidbox`.
_PIDBOX = ".pidbox"


class Presence:
    """The sign of life of one connection that consumes. A producer, or who waits for a reply, shows none.

    Args:
        names: From kombu's names to keys.
        routing: Knows which queues are passing, as those for replies are.
        fanout: Knows the queues of fanout exchanges.
        queues: Returns the queues that are consumed now.
        held: Returns how many messages are held now.
    """

    def __init__(
        self,
        names: Names,
        routing: Routing,
        fanout: Fanout,
        queues: Callable[[], Iterable[str]],
        held: Callable[[], int],
    ) -> None:
        self._names = names
        self._routing = routing
        self._fanout = fanout
        self._queues = queues
        self._held = held
        self._registry = Registry(names.namespace)
        self._pid = os.getpid()
        self._started = time.time()
        self._shown = ""
        # A process may have several connections that consume, and each has a key of its own.
        self._nameless = f"kombu-{self._pid}-{new_id()[:4]}@{socket.gethostname()}"

    def show(self, connector: Connector) -> float:
        """Show that it is there, if it consumes. Returns the seconds until it has to be shown again.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        name, about = self._about()
        if self._shown and name != self._shown:
            self.leave(connector)
        if name:
            # Redis may refuse it: messages come and go all the same.
            connector.execute_many(announce(self._registry, name, about))
            self._shown = name
        return BEAT

    def leave(self, connector: Connector) -> None:
        """Say that it is there no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached; the sign of life expires by itself.
        """
        shown, self._shown = self._shown, ""
        if shown and os.getpid() == self._pid:
            connector.execute_many(leave(self._registry, shown))

    def _about(self) -> tuple[str, Mapping[str, Any]]:
        """Its name, empty when it has nothing to show, and what it says of itself."""
        consumed = sorted(set(self._queues()))
        ears = [queue for queue in consumed if queue in self._fanout and queue.endswith(_PIDBOX)]
        served = [queue for queue in consumed if queue not in self._fanout and not self._routing.is_passing(queue)]
        if os.getpid() != self._pid or not (ears or served):
            return "", {}
        host = socket.gethostname()
        # The name that Celery gave the worker, if it told one; remote control can be off, or have a connection of its own.
        name = ears[0].removesuffix(_PIDBOX).rpartition(".")[0] if ears else self._nameless
        return name, {
            "host": host,
            "pid": self._pid,
            "app": "celery" if ears else "kombu",
            "queues": [self._names.queue(queue).queue for queue in served],
            "slots": None,
            "running": self._held(),
            "ended": None,
            "started": self._started,
            "kombu": True,
        }
