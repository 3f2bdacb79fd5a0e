"""How both connectors go on when Redis gives no useful answer. Scripted replies, no Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
import redis.asyncio
from redis import exceptions as redis_errors

from redisq.backoff import Backoff
from redisq.broker import commands
from redisq.broker.commands import Enqueue, Enqueued
from redisq.broker.connector import AsyncConnector, Connector, Patience
from redisq.broker.keys import QueueKeys
from redisq.broker.protocol import Prepared
from redisq.broker.scripts import Scripts
from redisq.errors import AccessDenied, BrokerError, BrokerFull, BrokerUnavailable, ProtocolError, QueueConflict

KEYS = QueueKeys("chat_api")
SCRIPTS = Scripts()
ENQUEUE = commands.enqueue(KEYS, [Enqueue("a", b"A")])
INSPECT = commands.find(KEYS, "a")
GONE = redis_errors.ConnectionError("Connection closed by server.")
NOSCRIPT = redis_errors.NoScriptError("No matching script.")
OK: list[bytes] = []
STORED = Enqueued([], {}, [])


class World:
    """The server and the clock of a connector. Each answer is for one write: its reply, its replies, or an error."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[list[tuple[Any, ...]]] = []
        self.time = 0.0
        self.pauses: list[float] = []
        self.reconnects = 0
        self.told: list[str] = []

    def reply(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        self.sent.append([_as_read(call) for call in calls])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception) and not isinstance(answer, redis_errors.ResponseError):
            raise answer
        return [answer] if len(calls) == 1 else answer

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds

    def down(self, error: Exception) -> None:
        self.told.append("down")

    def up(self) -> None:
        self.told.append("up")

    def callers(self) -> list[tuple[str, int]]:
        """Name and number of the first call of each write."""
        at = 3 + len(KEYS.fixed) + 1
        return [(calls[0][at], calls[0][at + 1]) for calls in self.sent]


def _as_read(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """The call with what was prepared of it as single arguments, which are text."""
    arguments: list[Any] = []
    for argument in call:
        if isinstance(argument, Prepared):
            arguments += argument.data.decode().split("\r\n")[1::2]
        else:
            arguments.append(argument)
    return tuple(arguments)


class FakeWire:
    """In place of a connector's connections."""

    def __init__(self, world: World) -> None:
        self._world = world

    def roundtrip(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        return self._world.reply(calls)

    def reset(self) -> None:
        self._world.reconnects += 1


class AsyncFakeWire(FakeWire):
    async def roundtrip(self, calls: list[tuple[Any, ...]]) -> list[Any]:  # type: ignore[override]
        return super().roundtrip(calls)

    async def reset(self) -> None:  # type: ignore[override]
        super().reset()


def open_sync(world: World, patience: Patience) -> Connector:
    connector = Connector(redis.Redis(), SCRIPTS, patience, world, world.now, world.pause)
    connector._wire = FakeWire(world)  # type: ignore[assignment]
    return connector


def open_async(world: World, patience: Patience, wire: type[FakeWire] = AsyncFakeWire) -> AsyncConnector:
    async def pause(seconds: float) -> None:
        world.pause(seconds)

    connector = AsyncConnector(redis.asyncio.Redis(), SCRIPTS, patience, world, world.now, pause)
    connector._wire = wire(world)  # type: ignore[assignment]
    return connector


PATIENCE = Patience(5.0, Backoff(first=1.0, cap=60.0))
Run = Callable[..., list[Any]]


@pytest.fixture(params=["sync", "async"])
def open_run(request: pytest.FixtureRequest) -> Callable[[World], Run]:
    """From a world to a function that carries commands through a connector in it."""

    def run_sync(world: World, patience: Patience = PATIENCE) -> Run:
        connector = open_sync(world, patience)
        return lambda *many: connector.execute_many(many)

    def run_async(world: World, patience: Patience = PATIENCE) -> Run:
        connector = open_async(world, patience)
        return lambda *many: asyncio.run(connector.execute_many(many))

    return run_sync if request.param == "sync" else run_async


@pytest.mark.parametrize("odd", [[b"1"], b"text", 7, [[]]])
def test_a_reply_that_cannot_be_read_is_the_error_of_its_own_command(open_run: Callable[[World], Run], odd: Any) -> None:
    world = World([odd, OK])
    failed, stored = open_run(world)(INSPECT, ENQUEUE)
    assert isinstance(failed, ProtocolError)
    assert "find on queue chat_api" in str(failed)
    assert stored == STORED


def test_a_script_is_called_by_its_sha_with_all_its_keys(open_run: Callable[[World], Run]) -> None:
    world = World(OK)
    assert open_run(world)(ENQUEUE) == [STORED]
    ((call,),) = world.sent
    assert call[:3] == ("EVALSHA", SCRIPTS["enqueue"].sha, str(len(KEYS.fixed)))
    assert call[3 : 3 + len(KEYS.fixed)] == KEYS.fixed
    prefix, caller, number, *args = call[3 + len(KEYS.fixed) :]
    assert (prefix, len(caller), number, args) == ("chat_api", 16, 1, ["a", b"A", ""])


def test_a_plain_command_is_sent_as_it_is(open_run: Callable[[World], Run]) -> None:
    world = World(None)
    assert open_run(world)(commands.wait([KEYS], 1)) == [None]
    assert world.sent == [[("BZPOPMIN", "chat_api:wake", 1)]]


def test_no_commands_are_no_write(open_run: Callable[[World], Run]) -> None:
    assert open_run(World())() == []


def test_a_script_that_the_server_does_not_know_is_sent_whole_at_once(open_run: Callable[[World], Run]) -> None:
    world = World(NOSCRIPT, OK)
    assert open_run(world)(ENQUEUE) == [STORED]
    assert [calls[0][:2] for calls in world.sent] == [
        ("EVALSHA", SCRIPTS["enqueue"].sha),
        ("EVAL", SCRIPTS["enqueue"].source),
    ]
    assert world.callers()[0] == world.callers()[1]
    assert world.pauses == []


def test_of_several_commands_only_the_unknown_one_is_sent_again(open_run: Callable[[World], Run]) -> None:
    world = World([OK, NOSCRIPT, [b"b"]], [b"waiting", b"1", b"1", b"A", b"", b""])
    results = open_run(world)(ENQUEUE, INSPECT, ENQUEUE)
    assert (results[0], results[1].state, results[2]) == (STORED, "waiting", Enqueued(["b"], {}, []))
    assert [[call[0] for call in calls] for calls in world.sent] == [["EVALSHA"] * 3, ["EVAL"]]


def test_commands_of_one_write_have_callers_of_their_own(open_run: Callable[[World], Run]) -> None:
    world = World([OK, OK])
    open_run(world)(ENQUEUE, ENQUEUE)
    at = 3 + len(KEYS.fixed) + 1
    assert len({call[at] for call in world.sent[0]}) == 2


WAITING = [
    redis_errors.BusyLoadingError("Redis is loading the dataset in memory"),
    redis_errors.ReadOnlyError("You can't write against a read only replica."),
    redis_errors.TryAgainError("TRYAGAIN"),
    redis_errors.ClusterDownError("CLUSTERDOWN"),
    redis_errors.MasterDownError("MASTERDOWN"),
    redis_errors.ResponseError("BUSY Redis is busy running a script."),
    redis_errors.ResponseError("NOREPLICAS Not enough good replicas to write."),
    redis_errors.TimeoutError("Timeout reading from socket"),
    ConnectionResetError("reset by peer"),
    GONE,
]


@pytest.mark.parametrize("error", WAITING, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_a_fault_that_passes_is_waited_for_and_answered(open_run: Callable[[World], Run], error: Exception) -> None:
    world = World(error, error, [b"a"])
    assert open_run(world)(ENQUEUE) == [Enqueued(["a"], {}, [])]
    assert len(set(world.callers())) == 1, "a repeated call keeps its caller and number"
    assert len(world.pauses) == 2
    assert 0.5 <= world.pauses[0] <= 1 <= world.pauses[1] <= 2
    assert world.told == ["down", "up"]


@pytest.mark.parametrize("error", WAITING, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_a_fault_that_stays_ends_in_an_error_that_names_the_queue(open_run: Callable[[World], Run], error: Exception) -> None:
    world = World(*[error] * 20)
    with pytest.raises(BrokerUnavailable) as unavailable:
        open_run(world)(ENQUEUE)
    assert world.time <= 5
    assert str(unavailable.value).startswith("enqueue on queue chat_api: ")
    assert unavailable.value.__cause__ is error


def test_the_error_says_what_to_do(open_run: Callable[[World], Run]) -> None:
    with pytest.raises(BrokerUnavailable, match="is Redis running, and is the URL right"):
        open_run(World(*[GONE] * 20))(ENQUEUE)


def test_an_error_without_a_text_is_named(open_run: Callable[[World], Run]) -> None:
    with pytest.raises(BrokerUnavailable, match="chat_api: TimeoutError; "):
        open_run(World(*[TimeoutError()] * 20))(ENQUEUE)


def test_old_connections_are_dropped_when_the_server_became_a_replica(open_run: Callable[[World], Run]) -> None:
    world = World(redis_errors.ReadOnlyError("replica"), GONE, OK)
    open_run(world)(ENQUEUE)
    assert world.reconnects == 1


def test_endless_patience_outlasts_any_outage(open_run: Any) -> None:
    world = World(*[GONE] * 100, OK)
    assert open_run(world, Patience(None, Backoff(first=1.0, cap=60.0)))(ENQUEUE) == [STORED]
    assert world.time > 60 * 30


def test_a_call_is_repeated_even_when_its_first_try_took_all_the_time(open_run: Any) -> None:
    """Its answer may be what got lost."""
    world = World(GONE, OK)
    assert open_run(world, Patience(0.1, Backoff(first=1.0, cap=60.0), tries=2))(ENQUEUE) == [STORED]
    first, second = (call for (call,) in world.sent)
    assert first == second
    world = World(GONE, GONE, OK)
    with pytest.raises(BrokerUnavailable):
        open_run(world, Patience(0.1, Backoff(first=1.0, cap=60.0), tries=2))(ENQUEUE)


ANSWERED = {
    "OOM": (redis_errors.OutOfMemoryError("command not allowed"), BrokerFull),
    "NOPERM": (redis_errors.NoPermissionError("no permissions"), AccessDenied),
    "WRONGPASS": (redis_errors.AuthenticationError("invalid username-password pair"), AccessDenied),
    "layout": (redis_errors.ResponseError("REDISQ_LAYOUT queue"), QueueConflict),
    "unknown": (redis_errors.ResponseError("unknown command"), BrokerError),
}


@pytest.mark.parametrize(("error", "kind"), ANSWERED.values(), ids=ANSWERED)
def test_a_fault_that_does_not_pass_is_an_error_at_once(open_run: Callable[[World], Run], error: Exception, kind: type) -> None:
    world = World(error)
    (result,) = open_run(world)(ENQUEUE)
    assert type(result) is kind
    assert "enqueue on queue chat_api" in str(result)
    assert result.__cause__ is error
    assert world.pauses == []


def test_one_commands_error_is_not_the_others(open_run: Callable[[World], Run]) -> None:
    world = World(
        [OK, redis_errors.OutOfMemoryError("no"), redis_errors.ResponseError("BUSY")], [b"waiting", b"1", b"1", b"", b"", b""]
    )
    results = open_run(world)(ENQUEUE, ENQUEUE, INSPECT)
    assert results[0] == STORED
    assert isinstance(results[1], BrokerFull)
    assert results[2].state == "waiting"
    assert [len(calls) for calls in world.sent] == [3, 1]


@pytest.mark.parametrize(
    ("answer", "is_reused"),
    [(OK, True), (redis_errors.ResponseError("REDISQ_LAYOUT queue"), True), (GONE, False)],
    ids=["answered", "refused", "never answered"],
)
def test_a_caller_speaks_again_only_when_its_last_call_was_answered(
    open_run: Callable[[World], Run], answer: Any, is_reused: bool
) -> None:
    world = World(*[answer] * (20 if answer is GONE else 1))
    run = open_run(world)
    with suppress(BrokerUnavailable):
        run(ENQUEUE)
    world.answers = [OK]
    run(ENQUEUE)
    (first, _), *_, (last, number) = world.callers()
    assert (last == first, number) == (is_reused, 2 if is_reused else 1)


def test_executing_one_command_raises_its_error() -> None:
    connector = open_sync(World(redis_errors.OutOfMemoryError("no")), PATIENCE)
    with pytest.raises(BrokerFull):
        connector.execute(ENQUEUE)


class HangingWire(AsyncFakeWire):
    """Sends, and is never answered."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.sent = asyncio.Event()

    async def roundtrip(self, calls: list[tuple[Any, ...]]) -> list[Any]:  # type: ignore[override]
        self._world.sent.append([_as_read(call) for call in calls])
        self.sent.set()
        await asyncio.Event().wait()
        return []


def test_a_cancelled_call_does_not_give_its_caller_back() -> None:
    world = World()

    async def cancel_two() -> None:
        connector = open_async(world, PATIENCE, HangingWire)
        wire: Any = connector._wire
        for _ in range(2):
            wire.sent.clear()
            call = asyncio.ensure_future(connector.execute(ENQUEUE))
            await wire.sent.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(cancel_two())
    assert len({name for name, _ in world.callers()}) == 2
