"""A chat API over real HTTP, as slow and flaky as they are."""

from __future__ import annotations

import json
import sys
import threading
import time
from bisect import bisect_right
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
#: Seconds that a chat is to be left alone after a 429.
ENOUGH = 2.0

_BODIES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "": (200, {"ok": True}),
    "500": (500, {"error": "internal error"}),
    "503": (503, {"error": "busy", "retry_after": 0.7}),
    "429": (429, {"error": "too many requests", "retry_after": ENOUGH}),
    "refused": (403, {"error": "this chat has blocked the bot"}),
    "broken": (500, {"error": "internal error"}),
    "poison": (200, {"ok": True, "poison": True}),
}


@dataclass
class ChatApi:
    """What the API knows.

    Attributes:
        messages: By number.
        seen: Message -> how often it was asked to answer it.
        answered: Message -> when it first did, by the monotonic clock.
        again: How often it answered what had been answered: at least once is not exactly once.
        out_of_order: How often it answered a message before an earlier one of the same chat.
        too_early: How often a chat was not left alone after a 429.
        requests: When they came.
        address: Host and port.
    """

    messages: Mapping[int, ChatMessage]
    seen: dict[int, int] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    again: int = 0
    out_of_order: int = 0
    too_early: int = 0
    requests: list[float] = field(default_factory=list)
    address: str = ""
    _alone_until: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, number: int) -> tuple[str, float]:
        """Return how the next request for a message is answered, and after how many seconds."""
        message = self.messages[number]
        with self._lock:
            now = time.monotonic()
            self.requests.append(now)
            count = self.seen[number] = self.seen.get(number, 0) + 1
            kind = message.hopeless or (message.fault if count == 1 else "")
            self.too_early += now < self._alone_until.get(message.chat_id, 0.0)
            if kind == "429":
                self._alone_until[message.chat_id] = now + ENOUGH
        return kind, {"poison": POISON_LATENCY, "silence": SILENCE, "429": 0.0}.get(kind, message.latency)

    def note_answered(self, number: int) -> None:
        """A message got its answer."""
        with self._lock:
            if number in self.answered:
                self.again += 1
                return
            self.answered[number] = time.monotonic()
            chat = self.messages[number].chat_id
            before = [other for other in self.messages.values() if other.chat_id == chat and other.number < number]
            self.out_of_order += any(other.number not in self.answered and not other.hopeless for other in before)

    def busiest_second(self) -> int:
        """Return how many requests came within a second, at most."""
        times = sorted(self.requests)
        return max((bisect_right(times, at + 1) - place for place, at in enumerate(times)), default=0)


@contextmanager
def running(messages: Iterable[ChatMessage]) -> Iterator[ChatApi]:
    """Serve on a free port of this machine's own address."""
    api = ChatApi({message.number: message for message in messages})
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["reply_to"]
            kind, seconds = api.plan(number)
            if closing.wait(seconds) or kind == "silence":
                return
            status, body = _BODIES[kind]
            if kind == "":
                api.note_answered(number)
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
