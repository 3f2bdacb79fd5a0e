"""`GET /live` and `GET /ready`, for whoever starts and replaces processes: Kubernetes, a load balancer, a person with curl.

Answered from a thread with an event loop of its own, so that a handler that blocks the worker's loop cannot make a probe
fail. A thread that answers says nothing of the loop; so what it is asked has to look at the loop, and does: see
`Worker` and `Watchdog.is_stuck`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from redisq.cancelling import end_tasks
from redisq.clocks import steady_loop
from redisq.errors import ConfigError

__all__ = ["Address", "Health", "Report", "ask"]

#: Host and port; or the path of a Unix socket.
Address = tuple[str, int] | str

#: Seconds that a client has, for all of its request and for taking the answer.
DEADLINE = 5.0

#: Bytes of a request at most, and clients at a time. For one more, the one that has been silent longest is dropped.
MAX_REQUEST, MAX_CLIENTS = 4096, 32


class Report(NamedTuple):
    """One answer: 200 when it is good, else 503. `about` is sent as JSON."""

    good: bool
    about: Mapping[str, Any]


class Health:
    """Serves the reports, from its making on.

    Args:
        address: Where.
        reports: What is asked for, e.g. `live`, and what makes its report; called in the thread.
        log: Told what goes wrong.
        beside: Runs in the same thread for as long as reports are served.

    Raises:
        ConfigError: It cannot listen there.
    """

    def __init__(
        self,
        address: Address,
        reports: Mapping[str, Callable[[], Awaitable[Report]]],
        log: logging.Logger,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._reports = reports
        self._log = log
        self._beside = beside
        self._answering = 0
        #: Clients that have not asked yet, in the order in which they came.
        self._silent: dict[asyncio.StreamWriter, None] = {}
        self._loop = steady_loop()
        self._stopped = asyncio.Event()
        try:
            self._socket = _listen(address)
        except OSError as error:
            self._loop.close()
            raise ConfigError(f"cannot listen on {address} for health checks: {error.strerror or error}") from None
        self._thread = threading.Thread(target=self._run, name="redisq-health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on: the system's choice, when the address has port 0."""
        port: int = self._socket.getsockname()[1]
        return port

    def stop(self) -> None:
        """Answer no more; the address is free then."""
        with suppress(RuntimeError):  # the thread has ended
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(1.0)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception:  # noqa: BLE001 - the worker works without them
                self._log.exception("Health checks are not answered any more")

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=MAX_REQUEST)
        beside = asyncio.create_task(self._beside()) if self._beside else None
        await self._stopped.wait()
        server.close()
        if beside:
            await end_tasks((beside,))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._answering >= MAX_CLIENTS:
            writer.transport.abort()
            return
        if self._answering + len(self._silent) >= MAX_CLIENTS:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.transport.abort()
        self._silent[writer] = None
        try:
            async with asyncio.timeout(DEADLINE):
                head = await self._head(reader)
                if self._silent.pop(writer, writer) is None:
                    self._answering += 1
                    try:
                        writer.write(await self._look(head))
                        await writer.drain()
                    finally:
                        self._answering -= 1
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # it was too slow, or has gone: nobody waits for an answer
        finally:
            self._silent.pop(writer, None)
            # Not waited for: a client that takes nothing would keep it open.
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        """Return the head of a request; nothing when it is too long."""
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return b""

    async def _look(self, head: bytes) -> bytes:
        if not head:
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {MAX_REQUEST} bytes")
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [b"GET" | b"HEAD" as method, target, protocol] if protocol.startswith(b"HTTP/1."):
                name = target.partition(b"?")[0].decode("latin-1").strip("/")
            case _:
                return _refusal(HTTPStatus.BAD_REQUEST, "want GET /... HTTP/1.1")
        if name not in self._reports:
            return _refusal(HTTPStatus.NOT_FOUND, f"there is {', '.join(f'/{known}' for known in self._reports)}")
        try:
            report = await self._reports[name]()
        except Exception:  # noqa: BLE001 - the next one may be answered
            self._log.exception("A health check failed")
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log")
        status = HTTPStatus.OK if report.good else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, report.about, with_body=method == b"GET")


def _listen(address: Address) -> socket.socket:
    if isinstance(address, str):
        Path(address).unlink(missing_ok=True)  # of one that was killed
        return socket.create_server(address, family=socket.AF_UNIX)
    return socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)


def _refusal(status: HTTPStatus, why: str) -> bytes:
    return _response(status, {"error": why})


def _response(status: HTTPStatus, about: Mapping[str, Any], with_body: bool = True) -> bytes:
    body = json.dumps(about).encode() + b"\n"
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + (body if with_body else b"")


async def ask(path: str, name: str) -> Report:
    """Ask the `Health` of another process, at a Unix socket."""
    try:
        async with asyncio.timeout(DEADLINE / 5):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"GET /{name} HTTP/1.1\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
            return Report(b" 200 " in head.partition(b"\r\n")[0], json.loads(body))
    except (TimeoutError, OSError, ValueError):
        return Report(False, {"why": "it does not answer"})
