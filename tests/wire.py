"""Servers of a few lines, to see what happens on the wire: one that says what it is told, one that loses replies."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["CuttingProxy", "canned_server"]

#: What redis-py sends by itself when it connects.
_GREETINGS = (b"HELLO", b"CLIENT", b"SELECT", b"AUTH")


def _serve(handle: Callable[[socket.socket], None]) -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, listener.getsockname()[1]


def _close(listener: socket.socket) -> None:
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@contextmanager
def canned_server(reply: bytes) -> Iterator[int]:
    """A server that gives every command the same reply, e.g. `-BUSY no time`; its port. An empty reply: it hangs up."""

    def handle(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as requests:
            for header in requests:
                words = []
                for _ in range(int(header[1:])):
                    length = int(requests.readline()[1:])
                    words.append(requests.read(length + 2)[:-2])
                if words[0].upper() in _GREETINGS:
                    connection.sendall(b"+OK\r\n")
                elif reply:
                    connection.sendall(reply + b"\r\n")
                else:
                    return

    listener, port = _serve(handle)
    yield port
    _close(listener)


class CuttingProxy:
    """Passes everything on to a server until `lose_next_reply`: then the next answer is dropped, and the connection cut.

    Attributes:
        port: Where clients connect to.
        lost: How many replies were lost.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._armed = threading.Event()
        self.lost = 0
        self._listener, self.port = _serve(self._handle)

    def lose_next_reply(self) -> None:
        self._armed.set()

    def close(self) -> None:
        _close(self._listener)

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        server.sendall(data)
                    elif self._armed.is_set():
                        self._armed.clear()
                        self.lost += 1
                        return
                    else:
                        client.sendall(data)
