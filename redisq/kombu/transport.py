"""kombu's transport: one connection of a program."""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from kombu.transport import virtual
from kombu.utils.url import as_url

import redisq_kombu_alias  # noqa: F401 - its import makes the scheme known
from redisq.broker.faults import CONNECTION_ERRORS
from redisq.errors import AccessDenied, BrokerError, BrokerUnavailable, WrongServer
from redisq.kombu.address import UrlCheck, hide_login, read_url
from redisq.kombu.asked import sending
from redisq.kombu.channel import Channel
from redisq.kombu.session import Session

__all__ = ["NamedTransport", "SecureTransport", "Transport"]


class Transport(virtual.Transport):
    """`redisq://`: kombu on redisq's queues."""

    Channel = Channel

    default_port = 6379
    # Nothing is polled: without it kombu would sleep between two looks.
    polling_interval = None
    # Celery's mingle, gossip, events and remote control ask for it.
    driver_type = "redis"
    driver_name = "redisq"
    can_parse_url: Any = UrlCheck()
    #: Whether the scheme itself says TLS.
    tls = False

    implements = virtual.Transport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=frozenset(("direct", "topic", "fanout"))
    )
    connection_errors = (
        *virtual.Transport.connection_errors, *CONNECTION_ERRORS, BrokerUnavailable, AccessDenied, WrongServer, OSError,
    )  # fmt: skip
    channel_errors = (*virtual.Transport.channel_errors, BrokerError)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._session: Session | None = None
        # Threads may use a connection for the first time at once; kombu's own channels then share one session all the same.
        self._lock = threading.Lock()
        hide_login(client)

    @property
    def session(self) -> Session:
        """What the channels share."""
        with self._lock:
            if self._session is None:
                self._session = Session(self.client, tls=self.tls)
            return self._session

    @property
    def supports_batch_publish(self) -> bool:
        """As the stock transport says it, which programs may look at."""
        return not self.client.transport_options.get("retry_on_timeout")

    def establish_connection(self) -> Any:
        """Connect, and make a first channel.

        Raises:
            Exception: redis-py's own when it cannot, one of `connection_errors`: programs that come from the stock
                transport catch that. The text says what the program was about to send.
        """
        try:
            return super().establish_connection()
        except BrokerError as error:
            cause, asked = error.__cause__, sending()
            if not isinstance(cause, CONNECTION_ERRORS):
                raise
            if asked:
                cause.args = (f"could not {asked}: {cause}",)
            raise cause from None

    def driver_version(self) -> str:
        """The version of redisq."""
        return version("redisq-tasks")

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Hand out one message.

        Raises:
            TimeoutError: None came in time.
        """
        if not self.session.consumer.drain(timeout):
            raise TimeoutError("timed out")

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Work in kombu's event loop."""
        self.session.consumer.register(loop)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        """Leave it."""
        self.session.consumer.unregister()

    def on_readable(self, fileno: int) -> None:
        """The loop found something to read."""
        self.session.consumer.on_readable(fileno)

    def close_connection(self, connection: Any) -> None:
        """Close all channels, then the connections to Redis."""
        super().close_connection(connection)
        session, self._session = self._session, None
        if session is not None:
            session.close()


class SecureTransport(Transport):
    """`redisqs://`: the same over TLS, with the server's certificate verified."""

    tls = True


class NamedTransport(Transport):
    """`transport="redisq.kombu:Transport"`, or Celery's `broker_transport`, with the URL of another transport.

    kombu forgets the URL's scheme when a transport is named, and with it whether to use TLS: so this one reads the URL itself.
    """

    can_parse_url = True

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.tls = read_url(client)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The URL that the connection was made with, without its password."""
        client = self.client
        return str(
            as_url(
                "redisqs" if self.tls or client.ssl else "redisq",
                client.hostname,
                client.port,
                client.userid,
                client.password,
                quote(client.virtual_host),
                sanitize=not include_password,
                mask=mask,
            )
        )
