"""A chat API over real HTTP, as slow and flaky as they are."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from redisq.demo.traffic import ChatMessage

__all__ = ["ChatApi", "running"]

#: Seconds that the answer to the poison takes: those that run beside it are mostly others each time.
POISON_LATENCY = 1.2
#: Longer than the bot waits.
SILENCE = 4.0

_BODIES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "": (200, {"ok": True}),
    "500": (500, {"error": "internal error"}),
    "503": (503, {"error": "busy", "retry_after": 0.7}),
    "refused": (403, {"error": "this chat has blocked the bot"}),
    "broken": (500, {"error": "internal error"}),
    "poison": (200, {"ok": True, "poison": True}),
}


@dataclass
class ChatApi:
    """What the API knows.

    Attributes:
        messages: By chat.
        seen: Chat -> how often it was asked to answer it.
        answered: Chat -> when it first did, by the monotonic clock.
        again: How often it answered what had been answered: at least once is not exactly once.
        address: Host and port.
    """

    messages: Mapping[int, ChatMessage]
    seen: dict[int, int] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    again: int = 0
    address: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, chat_id: int) -> tuple[str, float]:
        """Return how the next request for a chat is answered, and after how many seconds."""
        message = self.messages[chat_id]
        with self._lock:
            count = self.seen[chat_id] = self.seen.get(chat_id, 0) + 1
        kind = message.hopeless or (message.fault if count == 1 else "")
        return kind, {"poison": POISON_LATENCY, "silence": SILENCE}.get(kind, message.latency)

    def note_answered(self, chat_id: int) -> None:
        """A chat got its answer."""
        with self._lock:
            if chat_id in self.answered:
                self.again += 1
            else:
                self.answered[chat_id] = time.monotonic()


@contextmanager
def running(messages: Iterable[ChatMessage]) -> Iterator[ChatApi]:
    """Serve on a free port of this machine's own address."""
    api = ChatApi({message.chat_id: message for message in messages})
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            chat_id = int(self.path.split("/")[2])
            kind, seconds = api.plan(chat_id)
            if closing.wait(seconds) or kind == "silence":
                return
            status, body = _BODIES[kind]
            if kind == "":
                api.note_answered(chat_id)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        api.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            closing.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def server_bind(self) -> None:
        """Bind, and leave out the look-up of this machine's name: it takes seconds where there is no DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is part of the show."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
