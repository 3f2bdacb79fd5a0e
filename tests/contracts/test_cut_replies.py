"""A connection that breaks at any byte, of the reply or of the request: the call is repeated, and acts once (I1-I5, I11)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from redisq.broker import commands
from redisq.broker.callers import Callers
from redisq.broker.commands import Command, Settlement
from redisq.broker.connection import Server
from redisq.broker.connector import AsyncConnector
from tests.clock import scripts, set_clock
from tests.contracts.calls import CALLS, KEYS, LEASED, NOW
from tests.contracts.keyspace import check, read
from tests.integration.processes import wait_until
from tests.keyspace import dump, load
from tests.servers import RedisServer
from tests.wire import CuttingProxy

SCRIPTS = scripts()

#: They change nothing.
READS = {"browse", "find", "inspect", "look", "outcome", "seek"}

#: What is sent in one write. The last is a worker's trip.
WRITES: dict[str, list[Command[Any]]] = {name: [command] for name, command in CALLS.items() if name not in READS} | {
    "ack": [commands.settle(KEYS, [Settlement("ack", "a", 7)])],
    "trip": [commands.settle(KEYS, [Settlement("ack", "a", 7)]), CALLS["claim"]],
}

#: So many bytes at both ends are stepped through; in between, the neighbours of the ends of lines, so many at most.
NEAR, BETWEEN = 12, 40


class Client:
    """A connector behind the proxy. What is to happen between a failed try and the next is up to the test."""

    def __init__(self, kind: str, port: int) -> None:
        self.tries_again: Callable[[], None] = lambda: None
        server = Server(f"redis://127.0.0.1:{port}")
        self._runner = asyncio.Runner() if kind == "async" else None
        wire = server.connector("cut") if kind == "sync" else self._run(_make(server))
        self._connector: Any = wire
        wire._scripts = SCRIPTS
        wire._sleep = self._sleep if kind == "sync" else self._asleep
        # Connected and greeted: from here on only calls are on the wire.
        self.execute([CALLS["inspect"]])

    def _run(self, work: Any) -> Any:
        return self._runner.run(work) if self._runner else work

    def _sleep(self, seconds: float) -> None:
        self.tries_again()

    async def _asleep(self, seconds: float) -> None:
        self.tries_again()

    def execute(self, calls: Sequence[Command[Any]]) -> list[Any]:
        # A new caller, so that each step writes the same bytes.
        self._connector._callers = Callers()
        results: list[Any] = self._run(self._connector.execute_many(calls))
        return results

    def close(self) -> None:
        if self._runner:
            self._run(self._connector.aclose())
            self._runner.close()
        else:
            self._connector.close()


async def _make(server: Server) -> AsyncConnector:
    return server.async_connector("cut")


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, proxy: CuttingProxy, raw: redis.Redis) -> Iterator[Client]:
    for name in CALLS:
        raw.script_load(SCRIPTS[name].source)
    client = Client(request.param, proxy.port)
    yield client
    client.close()


def _lay_out(raw: redis.Redis) -> None:
    raw.flushdb()
    load(raw, KEYS, LEASED)
    set_clock(raw, KEYS.prefix, NOW)


def _digest(raw: redis.Redis) -> dict[str, Any]:
    """All of the queue, with the answers that are remembered, but not under which caller's name."""
    state = dump(raw, KEYS)
    return state | {"calls": sorted(answer.partition("\n")[2] for answer in state.get("calls", {}).values())}


def _steps(sent: bytes) -> list[int]:
    """Where to cut."""
    near = {*range(NEAR), *range(len(sent) - NEAR, len(sent) + 1)}
    ends = sorted({match.end() + by for match in re.finditer(rb"\r\n", sent) for by in (-1, 0, 1)} - near)
    return sorted(at for at in {*near, *ends[:: 1 + len(ends) // BETWEEN]} if 0 <= at <= len(sent))


class Outcome:
    """What the calls answer, say and leave behind when nothing breaks."""

    def __init__(self, raw: redis.Redis, client: Client, proxy: CuttingProxy, calls: Sequence[Command[Any]]) -> None:
        _lay_out(raw)
        self.before = _digest(raw)
        for passed in proxy.passed.values():
            passed.clear()
        self.results = client.execute(calls)
        self.request, self.reply = bytes(proxy.passed["request"]), bytes(proxy.passed["reply"])
        self.after = _digest(raw)


def _is_cut_off(raw: redis.Redis) -> bool:
    """Whether the server knows that the client is gone, and so has done what it will do of its request."""
    return not any(each["name"] == "redisq:cut" for each in raw.client_list())


@pytest.mark.parametrize("calls", WRITES.values(), ids=WRITES)
def test_a_reply_cut_at_any_byte(raw: redis.Redis, client: Client, proxy: CuttingProxy, calls: Sequence[Command[Any]]) -> None:
    clean = Outcome(raw, client, proxy, calls)
    assert clean.before != clean.after
    for at in _steps(clean.reply):
        _lay_out(raw)
        tries: list[dict[str, Any]] = []
        client.tries_again = lambda tries=tries: tries.append(_digest(raw))
        proxy.cut_reply(at)
        assert client.execute(calls) == clean.results, f"cut after {at} bytes of {clean.reply!r}"
        assert tries == ([clean.after] if at < len(clean.reply) else []), f"cut after {at}: done before the reply, tried again once"
        assert _digest(raw) == clean.after, f"cut after {at} bytes of {clean.reply!r}: not once"
        check(read(raw, KEYS))


@pytest.mark.chaos  # no killing, but half a minute
@pytest.mark.parametrize("calls", WRITES.values(), ids=WRITES)
def test_a_request_cut_at_any_byte(raw: redis.Redis, client: Client, proxy: CuttingProxy, calls: Sequence[Command[Any]]) -> None:
    clean = Outcome(raw, client, proxy, calls)
    # Of several calls in one write, the first ones may have arrived.
    states = [clean.before, *(Outcome(raw, client, proxy, calls[:count]).after for count in range(1, len(calls) + 1))]
    for at in _steps(clean.request):
        _lay_out(raw)
        seen: list[dict[str, Any]] = []

        def look(seen: list[dict[str, Any]] = seen) -> None:
            wait_until(lambda: _is_cut_off(raw), "the server knows")
            seen.append(_digest(raw))

        client.tries_again = look
        proxy.cut_request(at)
        assert client.execute(calls) == clean.results, f"cut after {at} bytes of {clean.request!r}"
        assert len(seen) == 1, f"cut after {at}: tried again once"
        assert seen[0] in states, f"cut after {at} bytes of {clean.request!r}: a part of a call was carried out"
        assert at == len(clean.request) or seen[0] != clean.after, f"cut after {at}: all was done without all being there"
        assert _digest(raw) == clean.after, f"cut after {at} bytes of {clean.request!r}: not once"
        check(read(raw, KEYS))


def test_the_cut_reply_of_a_script_that_the_server_does_not_know(raw: redis.Redis, client: Client, proxy: CuttingProxy) -> None:
    calls = WRITES["enqueue"]
    clean = Outcome(raw, client, proxy, calls)
    client.tries_again = lambda: None
    raw.script_flush()
    Outcome(raw, client, proxy, calls)
    for at in _steps(bytes(proxy.passed["reply"])):
        _lay_out(raw)
        raw.script_flush()
        proxy.cut_reply(at)
        assert client.execute(calls) == clean.results
        assert _digest(raw) == clean.after, f"cut after {at}"
        check(read(raw, KEYS))
