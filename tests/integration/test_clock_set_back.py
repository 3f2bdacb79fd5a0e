"""The wall clock of a real server is set back by an hour, or a replica whose clock is behind takes over."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from redisq import RedisQ
from redisq.broker.registry import BEAT
from redisq.states import State
from tests.integration import limited_bot
from tests.integration.processes import WorkerProcess, wait_until
from tests.leaks import check_leaks
from tests.servers import FakeTime, RedisServer, valkey_binary

Start = Callable[..., WorkerProcess]

HOUR = 3600
LEASE = 3
SAID = re.compile(
    r"WARNING.*Queue (\w+): the server's clock was set back by 3[56]\d\d\.\d s, and with it deadlines, .* \(\d+ in all\)"
)


@pytest.fixture
def clock(tmp_path: Path) -> FakeTime:
    return FakeTime(tmp_path)


@pytest.fixture
def server(clock: FakeTime) -> Iterator[RedisServer]:
    with RedisServer(valkey_binary(), environment=clock.environment) as server:
        yield server


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, app="tests.integration.limited_bot:app", BOT_LEASE=str(LEASE))


@contextmanager
def app_on(server: RedisServer) -> Iterator[RedisQ]:
    app = limited_bot.app.at(url=server.url())
    yield app
    app.close()


def starts(lines: Callable[[], list[list[str]]], kind: str) -> list[float]:
    """When the handlers of that kind began."""
    return [float(line[2]) for line in lines() if line[0] == kind]


def take_up_everything(app: RedisQ, start: Start, server: RedisServer, lines: Callable[[], list[list[str]]]) -> None:
    """Leave a lease of a dead worker, a retry, a paused limit, and a rate that was just used up."""
    doomed = start("-Q", "held", url=server.url()).ready()
    app.tasks["hold"].delay()
    wait_until(lambda: starts(lines, "hold"), "it runs")
    doomed.signal(signal.SIGKILL)
    worker = start("-Q", "work", url=server.url()).ready()
    failing, refused = app.tasks["fail_once"].delay(), app.tasks["refused_once"].delay()
    app.tasks["limited"].delay_many([()] * 5)
    with server.client() as client:
        wait_until(lambda: client.zcard("work:queue:retry") == 2, "it waits for its retry, and the refused one for its platform")
        wait_until(lambda: len(starts(lines, "limited")) == 1, "the rate is used up")
    assert {failing.state(), refused.state()} == {State.RETRY}
    worker.signal(signal.SIGKILL)


def finish_everything(app: RedisQ, start: Start, server: RedisServer, lines: Callable[[], list[list[str]]]) -> str:
    """Wait until all has run; what the worker logged."""
    worker = start("-Q", "work,held", url=server.url()).ready()
    wait_until(lambda: len(starts(lines, "limited")) == 5, "the limited queue goes on", 20)
    wait_until(lambda: len(starts(lines, "fail_once")) == 2, "the retry runs", 20)
    wait_until(lambda: len(starts(lines, "refused_once")) == 2, "the pause ends", 20)
    wait_until(lambda: len(starts(lines, "hold")) == 2, "the lease of the dead worker ends", 20)
    times = sorted(starts(lines, "limited"))
    assert min(after - before for before, after in pairwise(times)) > limited_bot.SPACING / 2, times
    wait_until(lambda: list(app.control.workers()) == [worker_name(worker)], "the dead workers are not listed", 4 * BEAT)
    return worker.text()


def worker_name(worker: WorkerProcess) -> str:
    found = re.search(r"Worker (\S+) is ready", worker.text())
    assert found, worker.text()
    return found[1]


@pytest.mark.chaos
def test_nothing_waits_for_the_time_that_the_clock_was_set_back_by(
    server: RedisServer, clock: FakeTime, start: Start, lines: Callable[[], list[list[str]]]
) -> None:
    with app_on(server) as app, server.client() as client:
        take_up_everything(app, start, server, lines)
        clock.set_ahead(-HOUR)
        log = finish_everything(app, start, server, lines)
        assert sorted(SAID.findall(log)) == ["held", "work"]
        assert client.hget("work:stats", "clock_set_back") == b"1"
        check_leaks(client)


@pytest.mark.chaos
def test_a_worker_that_runs_goes_on_when_the_clock_is_set_back(
    server: RedisServer, clock: FakeTime, start: Start, lines: Callable[[], list[list[str]]]
) -> None:
    with app_on(server) as app, server.client() as client:
        worker = start("-Q", "work,held", url=server.url()).ready()
        app.tasks["hold"].delay()
        app.tasks["limited"].delay_many([()] * 4)
        wait_until(lambda: len(starts(lines, "limited")) == 2, "the queue is under way")
        clock.set_ahead(-HOUR)
        wait_until(lambda: len(starts(lines, "limited")) == 4, "it goes on", 20)
        wait_until(lambda: len(SAID.findall(worker.text())) == 2, "it is said for each queue")
        # The holder is well and extends: its message is not handed out again.
        extended = client.zscore("held:queue:processing", client.hkeys("held:leases")[0])
        wait_until(lambda: client.zscore("held:queue:processing", client.hkeys("held:leases")[0]) > extended, "it is extended")
        assert len(starts(lines, "hold")) == 1
        app.tasks["limited"].delay()
        wait_until(lambda: len(starts(lines, "limited")) == 5, "an idle worker hears of new messages", 5)


@pytest.mark.chaos
def test_an_idle_worker_takes_over_from_one_that_dies_after_the_clock_was_set_back(
    server: RedisServer, clock: FakeTime, start: Start, lines: Callable[[], list[list[str]]]
) -> None:
    with app_on(server) as app:
        doomed = start("-Q", "held", url=server.url()).ready()
        app.tasks["hold"].delay()
        wait_until(lambda: starts(lines, "hold"), "it runs")
        start("-Q", "held", url=server.url()).ready()
        clock.set_ahead(-HOUR)
        doomed.signal(signal.SIGKILL)
        wait_until(lambda: len(starts(lines, "hold")) == 2, "the idle worker runs it", 20)


@pytest.mark.chaos
def test_nothing_waits_longer_when_a_replica_takes_over_whose_clock_is_behind(
    tmp_path: Path, start: Start, lines: Callable[[], list[list[str]]]
) -> None:
    clock = FakeTime(tmp_path, ahead=HOUR)
    faked = RedisServer(valkey_binary(), environment=clock.environment)
    with faked as master, RedisServer(valkey_binary()) as replica, replica.client() as client:
        client.replicaof("127.0.0.1", str(master.port))
        with app_on(master) as app, master.client() as old:
            take_up_everything(app, start, master, lines)
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
            assert old.wait(1, 10_000) == 1
        master.kill()
        client.replicaof("NO", "ONE")
        with app_on(replica) as app:
            log = finish_everything(app, start, replica, lines)
        assert sorted(SAID.findall(log)) == ["held", "work"]
