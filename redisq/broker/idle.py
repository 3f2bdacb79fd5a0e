"""How long an exchange with Redis may go on: while bytes move. A slow link is no dead one."""

from __future__ import annotations

import socket
import struct
from typing import Any

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

__all__ = ["LONGEST", "LOOKS", "Idle", "unsent"]

#: Seconds after which an exchange is given up, however steadily bytes come: a lease is shorter, and so is the memory of the
#: server for a call that is repeated.
LONGEST = 120.0

#: How often within the time for idleness somebody looks whether bytes have moved.
LOOKS = 8


class Idle:
    """Watches one exchange. Told the time, and anything that changes when bytes move.

    Args:
        now: Seconds of the caller's clock.
        seconds: So long no byte may move.

    Attributes:
        moved: When a byte moved last, as far as was seen.
    """

    __slots__ = ("_began", "_seconds", "_seen", "moved")

    def __init__(self, now: float, seconds: float) -> None:
        self._began = self.moved = now
        self._seconds = seconds
        self._seen: object = None

    def verdict(self, now: float, seen: object) -> str:
        """Say why the exchange is to be given up; empty: it goes on.

        Args:
            now: Seconds of the caller's clock.
            seen: What has been received, and is unsent; None: nothing was received, and all has been sent.
        """
        if seen != self._seen:
            self._seen = seen
            self.moved = now
        if now - self.moved >= self._seconds:
            return f"no answer, nor a byte of one, within {self._seconds:g} s"
        longest = max(LONGEST, self._seconds)
        return f"the answer was not complete after {longest:g} s" if now - self._began >= longest else ""


def unsent(sock: Any) -> int:
    """Return how many bytes the system still has to send, or to see arrive; 0 where it does not tell."""
    if fcntl is None or not isinstance(getattr(sock, "family", None), socket.AddressFamily):
        return 0
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError):
        return 0
