from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

from tests.leaks import check_leaks
from tests.servers import RedisServer

# A machine under load is slow, not wrong.
settings.register_profile("redisq", deadline=None)
settings.load_profile("redisq")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through thousands of collected tests: each time, all would stop for half a second.

    A fake chat platform that stands still for so long takes what has piled up for a flood.
    """
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Let the programs that tests start get signals, also when pytest was started in the background (`nohup pytest &`).

    There signals are ignored, and programs inherit that. A handler is not inherited: pytest goes on ignoring the signal.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _programs_are_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share compiled code between the programs that tests start, where Python may not write it beside the sources.

    Without this each of some hundred programs compiles all its modules again, which takes a third of its start time.
    """
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            base = tmp_path_factory.getbasetemp()
            shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "compiled"))
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server for all tests of this process. Take `redis_url` or `raw` unless you need the process itself."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A bare client on an empty database of the real server; what the test leaves behind is checked (I25)."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
        yield client
        check_leaks(client)


@pytest.fixture
def redis_url(redis_server: RedisServer, raw: redis.Redis) -> str:
    return redis_server.url()
