from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
import redis

from redisq.broker.keys import QueueKeys
from tests.faces import FACES, Broker, open_face
from tests.leaks import check_leaks


@pytest.fixture
def fake_raw() -> Iterator[redis.Redis]:
    """A bare client on an empty fakeredis; what the test leaves behind is checked (I25)."""
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
        yield client
        check_leaks(client)


@pytest.fixture(params=["real", "fake"])
def database(request: pytest.FixtureRequest) -> redis.Redis:
    """A bare client on an empty database: of the real server, and of fakeredis."""
    client: redis.Redis = request.getfixturevalue("fake_raw" if request.param == "fake" else "raw")
    return client


@pytest.fixture(params=FACES)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The queue `chat_api` through each implementation of the broker. Time stands still until the test moves it."""
    face: str = request.param
    raw: redis.Redis = request.getfixturevalue("fake_raw" if face.endswith("fake") else "raw")
    with open_face(face, raw, QueueKeys("chat_api")) as opened:
        yield opened
