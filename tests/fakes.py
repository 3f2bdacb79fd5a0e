"""An app's server in this process, without a socket."""

from __future__ import annotations

from typing import Any

import fakeredis

from redisq.broker.connection import Server
from redisq.broker.connector import AsyncConnector, Connector


class FakeServer(Server):
    """fakeredis behind the face of a `Server`. Unit tests only: nothing is proven by it alone."""

    def __init__(self) -> None:
        super().__init__("redis://fake")
        object.__setattr__(self, "fake", fakeredis.FakeServer())

    def client(self) -> fakeredis.FakeRedis:
        return fakeredis.FakeRedis(server=self.fake)  # type: ignore[attr-defined]

    def connector(self, role: str, **_: Any) -> Connector:
        return Connector(self.client(), self.scripts)

    def async_connector(self, role: str, **_: Any) -> AsyncConnector:
        return AsyncConnector(fakeredis.FakeAsyncRedis(server=self.fake), self.scripts)  # type: ignore[attr-defined]
