from __future__ import annotations

import gc
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
