"""The writer of an event loop: what leaves together, and what each caller gets when a trip goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from redisq.broker.commands import MAX_BATCH, Command, Enqueue, Enqueued, enqueue
from redisq.broker.connector import Patience
from redisq.broker.keys import QueueKeys
from redisq.broker.writer import OrderedWriter
from redisq.errors import BrokerUnavailable, ProtocolError

CHATS, MAILS = QueueKeys("chats"), QueueKeys("mails")


def _command(keys: QueueKeys, *ids: str) -> Command[Enqueued]:
    return enqueue(keys, [Enqueue(ident, b"body", 0, "0", "") for ident in ids])


class Held:
    """A connector whose trips end when the test says so."""

    def __init__(self, seconds: float | None = None) -> None:
        self.patience = Patience(seconds)
        self.moved = 0.0
        self.trips: list[Sequence[Command[Any]]] = []
        self._ends: list[asyncio.Future[list[Any]]] = []

    async def execute_many(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.trips.append(commands)
        self._ends.append(asyncio.get_running_loop().create_future())
        return await self._ends[-1]

    async def begun(self, number: int) -> list[tuple[str, list[str]]]:
        """Wait for a trip. Return its commands: queue and ids."""
        while len(self.trips) < number:  # noqa: ASYNC110 - whoever waits is in the same loop
            await asyncio.sleep(0)  # the writer has its turn
        return [(command.keys.prefix, list(command.args[0::3])) for command in self.trips[number - 1] if command.keys]

    def end(self, number: int, error: BaseException | None = None, results: list[Any] | None = None) -> None:
        if error:
            self._ends[number - 1].set_exception(error)
        elif results:
            self._ends[number - 1].set_result(results)
        else:
            self._ends[number - 1].set_result([Enqueued([], {}, []) for _ in self.trips[number - 1]])

    def answered(self) -> int:
        return sum(end.done() for end in self._ends)


def _writer(held: Held) -> OrderedWriter:
    return OrderedWriter(held)  # type: ignore[arg-type]


def _calls(writer: OrderedWriter, *commands: Sequence[Command[Enqueued]]) -> list[asyncio.Task[list[Any]]]:
    return [asyncio.create_task(writer.execute_many(each)) for each in commands]


async def _end_all(held: Held, calls: list[asyncio.Task[list[Any]]]) -> None:
    while not all(call.done() for call in calls):
        if held.answered() < len(held.trips):
            held.end(held.answered() + 1)
        await asyncio.sleep(0)


def test_calls_of_one_queue_share_a_command_also_between_calls_of_another() -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        calls = _calls(
            writer,
            [_command(CHATS, "0")],
            [_command(CHATS, "1")],
            [_command(MAILS, "2")],
            [_command(CHATS, "3")],
            [_command(MAILS, "4")],
        )
        await held.begun(1)
        held.end(1)
        assert await held.begun(2) == [("chats", ["1", "3"]), ("mails", ["2", "4"])]
        await _end_all(held, calls)

    asyncio.run(run())


def test_a_trip_has_no_later_call_that_could_overtake_a_retried_one() -> None:
    """Redis may refuse the first command of a write for the moment (BUSY, LOADING), and accept the second."""

    async def run() -> None:
        held = Held()
        writer = _writer(held)
        calls = _calls(writer, *([_command(CHATS, f"{number}")] for number in range(2 * MAX_BATCH + 1)))
        await _end_all(held, calls)
        for number in range(1, len(held.trips) + 1):
            queues = [queue for queue, _ in await held.begun(number)]
            assert queues == ["chats"]
        sent = [ident for number in range(len(held.trips)) for _, ids in await held.begun(number + 1) for ident in ids]
        assert sent == [f"{number}" for number in range(2 * MAX_BATCH + 1)]

    asyncio.run(run())


def test_calls_that_were_refused_together_are_sent_again_one_command_of_a_queue_a_trip() -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        calls = _calls(
            writer, [_command(CHATS, "0")], *([_command(keys, f"{number}")] for number in range(1, 5) for keys in (CHATS, MAILS))
        )
        await held.begun(1)
        held.end(1)
        assert await held.begun(2) == [("chats", ["1", "2", "3", "4"]), ("mails", ["1", "2", "3", "4"])]
        wrong = ProtocolError("one call is wrong")
        held.end(2, results=[wrong, Enqueued([], {}, [])])
        assert await held.begun(3) == [("chats", ["1", "2"])]
        held.end(3)
        assert await held.begun(4) == [("chats", ["3", "4"])]
        held.end(4, results=[wrong])
        assert await held.begun(5) == [("chats", ["3"])]
        held.end(5, results=[wrong])
        await _end_all(held, calls)
        assert [type(result) for (result,) in await asyncio.gather(*calls)] == [Enqueued] * 5 + [ProtocolError] + [Enqueued] * 3

    asyncio.run(run())


def test_the_commands_of_one_large_call_leave_one_a_trip() -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        large = [_command(CHATS, "1"), _command(CHATS, *(f"x{n}" for n in range(MAX_BATCH))), _command(CHATS, "2")]
        calls = _calls(writer, [_command(CHATS, "0")], large, [_command(CHATS, "3")])
        await _end_all(held, calls)
        trips = [await held.begun(number) for number in range(1, len(held.trips) + 1)]
        assert [[len(ids) for _, ids in trip] for trip in trips] == [[1], [1], [MAX_BATCH], [2]]

    asyncio.run(run())


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), asyncio.CancelledError()], ids=["error", "cancelled"])
def test_every_caller_of_a_trip_that_breaks_off_gets_an_error(error: BaseException) -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        calls = _calls(writer, *([_command(CHATS, f"{number}")] for number in range(4)))
        await held.begun(1)
        held.end(1)
        await held.begun(2)
        late = _calls(writer, [_command(CHATS, "late")])
        await asyncio.sleep(0)
        held.end(2, error)
        async with asyncio.timeout(5):
            ended = await asyncio.gather(*calls, return_exceptions=True)
            await _end_all(held, late)
        if isinstance(error, Exception):
            assert ended[1:] == [error] * 3
        else:
            assert [type(result) for results in ended[1:] if isinstance(results, list) for result in results] == [
                BrokerUnavailable
            ] * 3
        assert await late[0] == [Enqueued([], {}, [])]

    asyncio.run(run())


def test_a_sender_that_is_cancelled_before_its_first_step_blocks_no_call() -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        (call,) = _calls(writer, [_command(CHATS, "0"), _command(CHATS, "1")])
        await asyncio.sleep(0)
        assert writer._sender
        writer._sender.cancel()
        async with asyncio.timeout(5):
            await _end_all(held, [call])

    asyncio.run(run())


def test_a_call_that_is_out_of_time_keeps_the_answers_it_has() -> None:
    """The rest says whether it was sent: a caller that repeats what was accepted sends it twice."""

    async def run() -> None:
        held = Held(0.2)
        writer = _writer(held)
        (call,) = _calls(
            writer, [_command(CHATS, "0"), _command(CHATS, *(f"{n}" for n in range(1, 1 + MAX_BATCH))), _command(CHATS, "last")]
        )
        await held.begun(1)
        held.end(1)
        await held.begun(2)
        first, second, third = await call
        assert first == Enqueued([], {}, [])
        assert isinstance(second, BrokerUnavailable)
        assert "may or may not" in str(second)
        assert isinstance(third, BrokerUnavailable)
        assert "was not sent" in str(third)
        held.end(2)

    asyncio.run(run())


def test_calls_are_let_go_in_their_order_also_when_calls_of_several_queues_share_a_trip() -> None:
    async def run() -> None:
        held = Held(0.2)
        writer = _writer(held)
        ended: list[str] = []

        async def call(name: str, keys: QueueKeys) -> None:
            await writer.execute_many([_command(keys, name)])
            ended.append(name)

        names = {"0": CHATS, "1": CHATS, "2": MAILS, "3": CHATS}
        calls = [asyncio.create_task(call(name, keys)) for name, keys in names.items()]
        await held.begun(1)
        held.end(1)
        assert await held.begun(2) == [("chats", ["1", "3"]), ("mails", ["2"])]
        await asyncio.gather(*calls)
        assert ended == [*names]

    asyncio.run(run())


def test_a_closed_writer_keeps_the_answers_that_came_and_can_be_used_again() -> None:
    async def run() -> None:
        held = Held()
        writer = _writer(held)
        (call,) = _calls(writer, [_command(CHATS, "0"), _command(CHATS, *(f"{n}" for n in range(1, 1 + MAX_BATCH)))])
        await held.begun(1)
        held.end(1)
        await held.begun(2)
        await writer.aclose()
        first, second = await call
        assert first == Enqueued([], {}, [])
        assert "closed" in str(second)
        (again,) = _calls(writer, [_command(CHATS, "again")])
        await _end_all(held, [again])
        assert await again == [Enqueued([], {}, [])]

    asyncio.run(run())


def test_callers_do_not_share_an_error() -> None:
    """Each raise adds to the traceback of an error."""

    async def run() -> None:
        held = Held()
        writer = _writer(held)
        calls = _calls(writer, *([_command(keys, f"{n}")] for n in range(3) for keys in (CHATS, MAILS)))
        await held.begun(1)
        held.end(1)
        await held.begun(2)
        cause = OSError()
        error = BrokerUnavailable("away")
        error.__cause__ = cause
        held.end(2, error)
        errors = [result for each in calls[1:] for result in await each]
        assert len({id(each) for each in errors}) == 5
        assert {str(each) for each in errors} == {"away"}
        assert {each.__cause__ for each in errors} == {cause}

    asyncio.run(run())


def test_a_call_that_is_on_its_way_has_time_while_bytes_move_and_the_calls_behind_it_do_not() -> None:
    async def run() -> None:
        held = Held(0.2)
        writer = _writer(held)
        calls = _calls(writer, [_command(CHATS, "0")], [_command(CHATS, "large")])
        await held.begun(1)
        held.end(1)
        await held.begun(2)
        behind = _calls(writer, [_command(CHATS, "behind")])[0]
        while not behind.done():
            held.moved = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
        assert "was not sent" in str((await behind)[0])
        assert not calls[1].done()
        held.moved = 0.0
        assert "may or may not" in str((await calls[1])[0])

    asyncio.run(run())
