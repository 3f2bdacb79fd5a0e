"""A connection is with one caller, or free: threads that connect anew or close, and callers that are interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions as redis_errors

from redisq.broker.commands import Command
from redisq.broker.connector import Connector, Patience
from redisq.broker.scripts import Scripts
from redisq.broker.wire import Wire
from redisq.errors import SoftTimeout


class Connection:
    """A connection that does what the test says."""

    def __init__(self) -> None:
        self.reading: Callable[[], Any] = lambda: b"reply"
        self.disconnecting: Callable[[], object] = lambda: None
        self.busy = False
        #: Whether somebody disconnected it while another's call was on its way.
        self.disturbed = False

    def send_packed_command(self, parts: Any, check_health: bool) -> None:
        for _ in parts:
            pass

    def read_response(self) -> Any:
        return self.reading()

    def disconnect(self) -> None:
        self.disturbed |= self.busy
        self.disconnecting()


class Client:
    """What a wire needs of a client."""

    def __init__(self) -> None:
        self.connection_pool = self
        self.connection_kwargs = {"socket_timeout": 5.0}

    def make_connection(self) -> Connection:
        return Connection()

    def disconnect(self, inuse_connections: bool) -> None:
        assert not inuse_connections


def _wire(*connections: Connection) -> Wire:
    wire = Wire(Client(), 50, 5.0)  # type: ignore[arg-type]
    wire._free += connections
    return wire


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_connection_that_a_thread_has_just_taken_is_left_alone(end: str) -> None:
    taken, other = Connection(), Connection()
    wire = _wire(other, taken)
    begun, ended = threading.Event(), threading.Event()

    def read() -> bytes:
        taken.busy = True
        begun.set()
        assert ended.wait(5)
        taken.busy = False
        return b"its own"

    taken.reading = read
    replies: list[Any] = []
    caller = threading.Thread(target=lambda: replies.extend(wire.roundtrip([("ECHO",)])))

    def disconnect() -> None:
        # In the midst of it another thread begins a call.
        if not caller.ident:
            caller.start()
            begun.wait(0.5)

    other.disconnecting = disconnect
    getattr(wire, end)()
    ended.set()
    caller.join()
    assert not taken.disturbed
    assert replies


def test_a_connection_that_could_not_be_disconnected_is_not_used_again() -> None:
    broken = Connection()
    wire = _wire(broken)

    def interrupt() -> None:
        raise KeyboardInterrupt

    broken.reading = broken.disconnecting = interrupt
    with pytest.raises(KeyboardInterrupt):
        wire.roundtrip([("ECHO",)])
    broken.reading = lambda: b"the answer to the call before"
    assert wire.roundtrip([("ECHO",)]) == [b"reply"]


def _as_redis_py_does() -> Any:
    try:
        raise SoftTimeout("soft timeout")
    except TimeoutError:
        raise redis_errors.TimeoutError("Timeout reading from socket") from None


def _bare() -> Any:
    raise SoftTimeout("soft timeout")


@pytest.mark.parametrize("reading", [_bare, _as_redis_py_does])
def test_the_timeout_of_a_handler_is_not_taken_for_the_socket_s(reading: Callable[[], Any]) -> None:
    """It is raised at any line of the handler, also in the midst of a call to Redis, which would be tried again."""
    connector = Connector(Client(), Scripts(), Patience(5.0))  # type: ignore[arg-type]
    connection = Connection()
    connection.reading = reading
    connector._wire = _wire(connection)
    with pytest.raises(SoftTimeout):
        connector.execute(Command("", None, ("PING",), lambda reply: reply))
    assert not connection.busy


def test_a_closed_wire_carries_calls_and_keeps_no_connection_open() -> None:
    wire = _wire()
    wire.close()
    connection = Connection()
    wire._free.append(connection)
    open_after_call = True

    def disconnect() -> None:
        nonlocal open_after_call
        open_after_call = False

    connection.disconnecting = disconnect
    assert wire.roundtrip([("ECHO",)]) == [b"reply"]
    assert not open_after_call
