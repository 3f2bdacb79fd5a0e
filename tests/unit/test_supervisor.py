"""The supervisor, with small programs in place of workers."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from redisq.worker.signals import HURRY, TOGETHER, Counter
from redisq.worker.supervisor import WELL, Supervisor

#: Tells the supervisor what a worker would.
SAY = "import os; say = lambda word: os.write(int(os.environ['REDISQ_SUPERVISOR_LINE']), f'0 {word}\\n'.encode()); "


def program(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code]


class Clock:
    """Moves when told, and by so much at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.seconds = 1000.0
        self.step = step

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


class Waits:
    """A backoff that does not wait, and ends the supervisor after so many failures."""

    def __init__(self, most: int, then: Callable[[int], object] = lambda _: None) -> None:
        self.failures: list[int] = []
        self._most = most
        self._then = then

    def delay(self, failures: int, _random: Callable[[], float]) -> float:
        self.failures.append(failures)
        self._then(len(self.failures))
        if len(self.failures) == self._most:
            os.kill(os.getpid(), signal.SIGTERM)
            return 60.0
        return 0.0


def supervisor(command: Sequence[str], backoff: Any, now: Callable[[], float] | None = None, **options: Any) -> Supervisor:
    return Supervisor(command, 1, logging.getLogger("test"), backoff=backoff, now=now or Clock(), **options)


def test_a_process_that_keeps_dying_is_started_after_growing_waits() -> None:
    waits = Waits(4)
    assert asyncio.run(supervisor(program("raise SystemExit(3)"), waits).run()) == 0
    assert waits.failures == [1, 2, 3, 4]


def test_a_death_after_a_long_life_is_a_first_one() -> None:
    clock = Clock()

    def live_long(deaths: int) -> None:
        # The third life is long; the clock is looked at when a life begins and when it ends.
        clock.step = WELL + 1 if deaths == 2 else 0.0

    waits = Waits(4, live_long)
    assert asyncio.run(supervisor(program("raise SystemExit(3)"), waits, clock).run()) == 0
    assert waits.failures == [1, 2, 1, 2]


def test_a_process_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    waits = Waits(3)
    assert asyncio.run(supervisor(["/no/such/program"], waits).run()) == 0
    assert waits.failures == [1, 2, 3]
    assert "could not be started (No such file or directory), starting another in 0.0 s" in caplog.text


@pytest.mark.parametrize("code", [2, 78])
def test_a_command_that_never_worked_ends_it(code: int) -> None:
    assert asyncio.run(supervisor(program(f"raise SystemExit({code})"), Waits(1)).run()) == code


def test_a_command_that_once_worked_is_tried_on() -> None:
    waits = Waits(3)
    assert asyncio.run(supervisor(program(f"{SAY} say('ready'); raise SystemExit(78)"), waits).run()) == 0
    assert waits.failures == [1, 2, 3]


@pytest.mark.parametrize("code", ["raise SystemExit(0)", f"{SAY} say('ready'); os._exit(0)"])
def test_an_exit_that_nobody_asked_for_is_a_failure(code: str, caplog: pytest.LogCaptureFixture) -> None:
    waits = Waits(2)
    assert asyncio.run(supervisor(program(code), waits).run()) == 0
    assert waits.failures == [1, 2]
    assert "ended without being asked (exit code 0)" in caplog.text


def test_a_broken_start_waits_for_the_next_change(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(1)"
    change: asyncio.Queue[None] = asyncio.Queue()

    async def changes() -> AsyncIterator[None]:
        while True:
            await change.get()
            yield

    async def check() -> None:
        waits = Waits(1)
        running = asyncio.ensure_future(supervisor(program(code), waits, changes=changes()).run())
        for number in range(1, 4):
            async with asyncio.timeout(20):
                while not starts.exists() or len(starts.read_text()) < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            change.put_nowait(None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
        assert not waits.failures

    asyncio.run(check())


def test_the_first_signal_drains_the_second_hurries_the_third_kills(tmp_path: Path) -> None:
    got = tmp_path / "got"
    code = (
        f"import signal; note = lambda number, _: open({str(got)!r}, 'a').write(f'{{number}} ')\n"
        f"for number in (signal.SIGTERM, signal.SIGINT, signal.{HURRY.name}): signal.signal(number, note)\n"
        "note('up', 0)\n"
        "while True: signal.pause()"
    )
    clock = Clock()

    async def until(text: str) -> None:
        async with asyncio.timeout(20):
            while not got.exists() or got.read_text() != text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def check() -> None:
        running = asyncio.ensure_future(supervisor(program(code), Waits(1), clock).run())
        await until("up ")
        os.kill(os.getpid(), signal.SIGINT)
        await until(f"up {signal.SIGTERM:d} ")
        os.kill(os.getpid(), signal.SIGTERM)  # the same one: from the group
        await asyncio.sleep(0)
        clock.seconds += TOGETHER
        os.kill(os.getpid(), signal.SIGTERM)
        await until(f"up {signal.SIGTERM:d} {HURRY:d} ")
        clock.seconds += TOGETHER
        assert not running.done()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await running == 0

    asyncio.run(check())


def test_signals_within_a_second_of_one_that_counted_are_that_one() -> None:
    clock = Clock()
    counter = Counter(clock)
    counted = []
    for _ in range(6):
        counted.append(counter.another())
        clock.seconds += TOGETHER * 0.4
    assert counted == [True, False, False, True, False, False]
    assert counter.count == 2
