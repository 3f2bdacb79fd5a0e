"""One blocking call at a time on a connection of its own, whose socket an event loop can watch."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import redis

from redisq.broker.commands import Command
from redisq.broker.faults import TROUBLE, classify
from redisq.broker.forks import after_fork, reopened
from redisq.errors import BrokerError, BrokerUnavailable

__all__ = ["BlockingCall", "readable"]

T = TypeVar("T")


def readable(sockets: Iterable[Any], seconds: float) -> list[int]:
    """Wait until one can be read, so many seconds at most. Gives the numbers of those that can."""
    numbers = [each.fileno() for each in sockets]
    if not hasattr(select, "poll"):
        return select.select(numbers, [], [], seconds)[0]
    # `select` takes numbers up to 1023 only, and a program may have more files open.
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    return [number for number, _ in poll.poll(max(seconds, 0) * 1000)]


class BlockingCall(Generic[T]):
    """Send now, read later: a plain command (no script) on a connection of its own.

    Args:
        client: Gives the connection by its pool; owned from now on.
        opened: Told the socket's number when one was opened.
        closing: Told it before that socket is closed.
    """

    def __init__(self, client: redis.Redis, opened: Callable[[int], None], closing: Callable[[int], None]) -> None:
        self._client = client
        self._opened = opened
        self._closing = closing
        self._connection: Any = None
        self._socket: Any = None
        # Kept apart: a socket that was closed no longer knows its number, and the loop has to be told that number.
        self._fileno = -1
        self._parse: Callable[[Any], T] | None = None
        after_fork(self._forget)

    def _forget(self) -> None:
        # The socket is the parent's: not closed by its protocol, only let go. So are the locks of the pool.
        self._client = reopened(self._client)
        self._connection = self._socket = self._parse = None
        self._fileno = -1

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come."""
        return self._parse is not None

    def fileno(self) -> int:
        """The socket's number; -1 when there is none."""
        return self._fileno

    def send(self, command: Command[T]) -> None:
        """Send a command.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        try:
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            if self._socket is None:
                self._connection.connect()
                self._socket = self._connection._sock  # redis-py has no other way to it
                self._fileno = int(self._socket.fileno())
                self._opened(self._fileno)
            self._connection.send_packed_command(self._connection.pack_command(*command.args), check_health=False)
        except TROUBLE as error:
            self.disconnect()
            raise self._explained(error) from error
        except BaseException:
            # Interrupted: nobody knows how much of it was sent.
            self.disconnect()
            raise
        self._parse = command.parse

    def readable(self, seconds: float) -> bool:
        """Wait until the answer can be read, so many seconds at most."""
        if self._socket is None:
            return False
        return bool(readable((self._socket,), seconds))

    def read(self) -> T:
        """Read the answer.

        Raises:
            BrokerError: It is an error, or the connection broke.
        """
        parse, self._parse = self._parse, None
        if parse is None or self._connection is None:
            raise BrokerUnavailable("nothing was asked")
        try:
            # Left open after an error: `disconnect` closes it, after it has told the loop.
            return parse(self._connection.read_response(disconnect_on_error=False))
        except TROUBLE as error:
            self.disconnect()
            raise self._explained(error) from error
        except BaseException:
            # Interrupted, or no answer to this call: the next one would read what is left of it.
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Give up the answer and the socket."""
        self._parse = None
        if self._socket is not None:
            self._closing(self._fileno)
            self._socket = None
            self._fileno = -1
        if self._connection is not None:
            self._connection.disconnect()

    def close(self) -> None:
        """Close for good."""
        self.disconnect()
        self._client.close()

    def _explained(self, error: Exception) -> BrokerError:
        text = (str(error) or type(error).__name__).splitlines()[0][:300]
        fault = classify(error)
        return fault.error(text + (f"; {fault.advice}" if fault.advice else ""))
