"""What the channels of one connection share: options, connections to Redis, the keeper, the consumer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redisq.broker.connector import Connector, Patience
from redisq.kombu.address import server_of
from redisq.kombu.consumer import Consumer
from redisq.kombu.fanout import Fanout
from redisq.kombu.keeper import Keeper
from redisq.kombu.names import Names
from redisq.kombu.options import Options
from redisq.kombu.outage import Outage
from redisq.kombu.presence import Presence
from redisq.kombu.routing import Routing
from redisq.logs import get_logger

__all__ = ["Session"]

_log = get_logger("redisq.kombu")

#: Seconds that a consumer waits for an answer before it takes the connection for dead.
_DEAF = 1.5
#: How long a consumer's call is repeated before the outage is left to the next round. Twice at least: what a claim took whose
#: answer got lost would have to wait until its lease ends.
_SHORT = Patience(0.3, tries=2)
#: How long a call is repeated where kombu has another URL to try: a server that does not answer is not asked twice.
_ALTERNATES = Patience(0.3)
#: How long a new channel's first call is repeated: an idle connection may have been cut, and connecting anew cures that. A server
#: that does not answer is not asked twice.
_AT_ONCE = Patience(0.2)


class Session:
    """Everything connects when it is first used.

    Args:
        client: The `kombu.Connection`.
        tls: Whether the scheme says TLS.
    """

    def __init__(self, client: Any, *, tls: bool) -> None:
        given = client.transport_options
        self.options = Options.of(given)
        self.names = Names(str(given.get("global_keyprefix") or ""))
        server = server_of(client, given, tls=tls)
        connect = min(server.options["socket_connect_timeout"], _DEAF)
        hasty = replace(server, timeout=min(server.timeout, _DEAF), options={**server.options, "socket_connect_timeout": connect})
        alternates = len(client.alt or ()) > 1
        if alternates:
            # What the program says of the time for an answer, or for a connection, counts all the same.
            server = replace(
                server,
                timeout=server.timeout if given.get("socket_timeout") else hasty.timeout,
                options=server.options if given.get("socket_connect_timeout") else hasty.options,
            )
        self.connector: Connector = server.connector("kombu", patience=_ALTERNATES if alternates else None)
        self.once: Connector = server.connector("kombu", patience=_AT_ONCE)
        self.routing = Routing(self.connector, self.names, self.options)
        self.fanout = Fanout(self.connector, self.names, self.options)
        outage = Outage()
        self._presence = Presence(self.names, self.routing, self.fanout, lambda: self.consumer.queues(), lambda: self.keeper.count)
        self.keeper = Keeper(hasty, self.options.lease_us, self._refresh, _log, outage, self._presence.leave)
        self.consumer = Consumer(
            hasty,
            hasty.connector("kombu-claims", patience=_ALTERNATES if alternates else _SHORT),
            self.options,
            self.names,
            self.keeper,
            self.fanout,
            _log,
            outage,
            back=self._say_all_again,
            give_up=alternates,
        )

    def _say_all_again(self) -> None:
        self.routing.say_all_again()
        self.keeper.refresh_now()

    def _refresh(self, connector: Connector) -> float:
        """Prolong what lives only while somebody uses it, and show that this consumer is there. Returns when again, in seconds."""
        return min(self.routing.refresh(connector), self._presence.show(connector))

    def close(self) -> None:
        """Give back what nobody was given, settle what is settled, close all connections. Bounded in time."""
        self.consumer.close()
        self.keeper.close()
        self.connector.close()
        self.once.close()
