"""Work in kombu's event loop: it watches the sockets, and is turned when there is something to do without them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["TURN", "Place"]

#: Seconds between two looks whether a connection is dead.
TURN = 0.5


class Place:
    """The place of one consumer in a loop, which it may join and leave.

    Args:
        turn: Does what there is to do. Gives the seconds until there is more to do without being woken; None: nothing.
        read: Reads what came on a socket.
    """

    def __init__(self, turn: Callable[[], float | None], read: Callable[[int], None]) -> None:
        self._turn = turn
        self._read = read
        self._loop: Any = None
        self._timer: Any = None
        self._alarm_at = 0.0
        self._poke: socket.socket | None = None
        self._poked: socket.socket | None = None
        self._hooks: list[Callable[[], None]] = []

    @property
    def has_loop(self) -> bool:
        """Whether it is in a loop."""
        return self._loop is not None

    def forget(self) -> None:
        """In a forked child: the loop is the parent's."""
        self._hooks = []
        self._loop = self._timer = self._poked = self._poke = None

    def join(self, loop: Any, filenos: Iterable[int]) -> None:
        """Work in a loop from now on, with these sockets, and those that are opened."""
        self._loop = loop
        self._poked, self._poke = socket.socketpair()
        self._poked.setblocking(False)
        loop.add_reader(self._poked.fileno(), self._turned)
        loop.on_tick.add(self._tick)
        # Its poller sleeps as long as no timer says otherwise; dead connections and due times want to be looked at.
        timer = loop.call_repeatedly(TURN, _nothing)
        self._hooks = [lambda: loop.on_tick.discard(self._tick), timer.cancel]
        for fileno in filenos:
            self.opened(fileno)

    def leave(self, filenos: Iterable[int]) -> None:
        """Leave the loop alone."""
        for fileno in filenos:
            self.closing(fileno)
        for hook in self._hooks:
            hook()
        self._hooks = []
        if self._poked is not None and self._poke is not None:
            self._loop.remove(self._poked.fileno())
            self._poked.close()
            self._poke.close()
            self._poked = self._poke = None
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def opened(self, fileno: int) -> None:
        """A socket was opened: watch it."""
        if self._loop is not None:
            self._loop.add_reader(fileno, self._read, fileno)

    def closing(self, fileno: int) -> None:
        """A socket is about to be closed: watch it no more."""
        if self._loop is not None:
            self._loop.remove(fileno)

    def _tick(self) -> None:
        seconds = self._turn()
        if seconds is not None and self._loop is not None:
            self._alarm(seconds)

    def _alarm(self, seconds: float) -> None:
        """Turn the loop then. It has decided how long to sleep before it asked us, so it is poked to decide again."""
        at = time.monotonic() + seconds
        if seconds > 0:
            if time.monotonic() < self._alarm_at <= at + 0.001:
                return
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, _nothing)
            self._alarm_at = at
        if self._poke is not None:
            self._poke.send(b"!")

    def _turned(self) -> None:
        if self._poked is not None:
            self._poked.recv(100)


def _nothing() -> None:
    """The loop turns, which is all that is wanted."""
