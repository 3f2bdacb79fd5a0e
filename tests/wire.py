"""Servers of a few lines, to see what happens on the wire: one that says what it is told, one that loses replies."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

__all__ = ["CuttingProxy", "RefusingProxy", "SlowProxy", "canned_server", "tls_server"]

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


@contextmanager
def tls_server(server_port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Takes TLS connections for a server that knows no TLS; its port."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def handle(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(connection, server_side=True) as client,
            socket.create_connection(("127.0.0.1", server_port)) as server,
        ):
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join()

    listener, port = _serve(handle)
    yield port
    _close(listener)


class CuttingProxy:
    """Passes everything on to a server, until told to cut a connection at a byte, or to let all that are open go silent.

    Attributes:
        port: Where clients connect to.
        lost: How many connections were cut.
        passed: What passed on each way, `request` and `reply`, since it was last cleared.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._lock = threading.Lock()
        self._cut: tuple[str, int] | None = None
        self._silenced = 0
        self._watched: _Watched | None = None
        self.lost = 0
        self.passed = {"request": bytearray(), "reply": bytearray()}
        self._listener, self.port = _serve(self._handle)

    def lose_next_reply(self) -> None:
        """The next answer is dropped, and the connection cut."""
        self.cut_reply(0)

    def cut_reply(self, after: int) -> None:
        """So many more bytes reach the client; then the connection is cut."""
        self._cut = ("reply", after)

    def cut_request(self, after: int) -> None:
        """So many more bytes reach the server; then the connection is cut."""
        self._cut = ("request", after)

    def silence(self) -> None:
        """Nothing that is sent on the connections of now arrives any more, and nobody is told: half-open sockets."""
        self._silenced += 1

    def swallow(self, way: str, words: bytes, at: int = 1) -> threading.Event:
        """Let one connection go silent at its `at`-th request with these words. No other connection does.

        Args:
            way: `request`: the server never hears it; `reply`: the server carries it out, and nobody hears the answer.
            words: What is in the request.
            at: Which of those requests, from 1.

        Returns:
            Set when it has happened.
        """
        self._watched = _Watched(way, words, at)
        return self._watched.happened

    def close(self) -> None:
        _close(self._listener)

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened = self._silenced
            before = b""
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    try:
                        data = source.recv(65536)
                    except ConnectionResetError:
                        return
                    if not data:
                        return
                    if self._silenced != opened:
                        continue
                    watched = self._watched
                    if watched and source is client:
                        before = watched.look(before, data, client)
                    if watched and watched.swallows("request" if source is client else "reply", client):
                        continue
                    part, is_last = self._what_passes("request" if source is client else "reply", data)
                    with suppress(OSError):
                        (server if source is client else client).sendall(part)
                    if is_last:
                        return

    def _what_passes(self, way: str, data: bytes) -> tuple[bytes, bool]:
        """What of it may pass, and whether nothing more will."""
        with self._lock:
            self.passed[way] += data
            if self._cut is None or self._cut[0] != way:
                return data, False
            left = self._cut[1]
            if len(data) < left:
                self._cut = (way, left - len(data))
                return data, False
            self._cut = None
            self.lost += 1
            return data[:left], True


class _Watched:
    """Finds the request at which a connection goes silent."""

    def __init__(self, way: str, words: bytes, at: int) -> None:
        self.happened = threading.Event()
        self._way = way
        self._words = words
        self._left = at
        self._lock = threading.Lock()
        self._found: socket.socket | None = None

    def look(self, before: bytes, data: bytes, client: socket.socket) -> bytes:
        """Look at what a client sends. Gives the end of it, in which the words may begin: the next `before` of that client."""
        text = before + data
        with self._lock:
            self._left -= text.count(self._words)
            if self._left <= 0 and self._found is None:
                self._found = client
        return text[len(text) - len(self._words) + 1 :] if len(text) >= len(self._words) else text

    def swallows(self, way: str, client: socket.socket) -> bool:
        """Whether what comes that way on a client's connection is dropped."""
        if client is not self._found or way != self._way:
            return False
        self.happened.set()
        return True


class SlowProxy:
    """A slow link: passes so many bytes a second on to a server, each way.

    Attributes:
        port: Where clients connect to.
        limit: After so many more bytes of an answer nothing arrives any more; None: all of it does.
    """

    #: Bytes that pass at once.
    STEP = 20_000

    def __init__(self, server_port: int, rate: float) -> None:
        self._server_port = server_port
        self._pause = self.STEP / rate
        self._never = threading.Event()
        self.limit: int | None = None
        self._listener, self.port = _serve(self._handle)

    def close(self) -> None:
        self._never.set()
        _close(self._listener)

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            for end in (client, server):
                # Little on its way, so that it is the proxy that is slow.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.STEP)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.STEP)
            request = threading.Thread(target=self._copy, args=(client, server, False), daemon=True)
            request.start()
            self._copy(server, client, True)
            request.join()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(self.STEP):
                if is_answer and self.limit is not None:
                    data, self.limit = data[: self.limit], max(self.limit - len(data), 0)
                target.sendall(data)
                self._never.wait(self._pause * len(data) / self.STEP)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)


class RefusingProxy:
    """Passes commands on to a server one by one, and answers some of them itself, also in the middle of a pipeline.

    Args:
        server_port: Where the server listens.
        refuse: Gets the words of a command. Returns an error, such as `BUSY no time`, or None: the server answers.

    Attributes:
        port: Where clients connect to.
    """

    def __init__(self, server_port: int, refuse: Callable[[list[bytes]], str | None]) -> None:
        self._server_port = server_port
        self._refuse = refuse
        self._listener, self.port = _serve(self._handle)

    def close(self) -> None:
        _close(self._listener)

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server, suppress(OSError):
            requests, replies = client.makefile("rb"), server.makefile("rb")
            while request := _element(requests):
                if error := self._refuse(request[2::2]):
                    client.sendall(f"-{error}\r\n".encode())
                else:
                    server.sendall(b"\r\n".join([*request, b""]))
                    client.sendall(b"\r\n".join([*_element(replies), b""]))


def _element(stream: BinaryIO) -> list[bytes]:
    """Read one request, or one reply, with all that is in it. Return its lines; none: the stream has ended."""
    lines: list[bytes] = []
    left = 1
    while left:
        header = stream.readline()
        if not header:
            return []
        lines.append(header[:-2])
        left -= 1
        size = int(header[1:]) if header[:1] in b"$=*%~>" else 0
        if header[:1] in b"$=":
            lines += [stream.read(size + 2)[:-2]] if size >= 0 else []
        else:
            left += 2 * size if header[:1] == b"%" else max(size, 0)
    return lines
