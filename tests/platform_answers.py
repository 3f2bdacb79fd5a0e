"""A platform that answers every request as a test says: a real HTTP server, for real clients."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Platform:
    """Where it is, and what it answers.

    Attributes:
        url: Without a slash at its end.
        status: Of the next answers.
        headers: Of the next answers; without `Date` the answer has none.
        body: Of the next answers: bytes, or what becomes JSON.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 429
        self.headers: Mapping[str, str] = {}
        self.body: Any = {}


@contextmanager
def platform() -> Iterator[Platform]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
            self.send_response_only(found.status)
            for name, value in {
                "Content-Type": "application/json",
                "Connection": "close",
                **found.headers,
                "Content-Length": str(len(body)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """A test's output is the test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Platform(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
