"""An app's Redis in this process, without a socket: fakeredis runs the same scripts as a server does."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from redisq.broker.connection import Server
from redisq.broker.connector import AsyncConnector, Connector, Observer, Patience
from redisq.broker.scripts import Scripts
from redisq.errors import ConfigError

if TYPE_CHECKING:
    import redis

__all__ = ["FakeServer"]


class FakeServer(Server):
    """Redis in this process, for tests: `RedisQ("bot", server=FakeServer())`. Empty at first, gone with its last user.

    Nothing is proven by it alone: no outage, no eviction, no two processes happen to it.

    Args:
        scripts: The Lua scripts; else those of the release.

    Raises:
        ConfigError: fakeredis, or its Lua, is not installed.
    """

    _state: Any

    def __init__(self, scripts: Scripts | None = None) -> None:
        super().__init__("redis://in-this-process", scripts=scripts or Scripts())
        # Past the frozen dataclass: where it is never changes, what it holds does.
        object.__setattr__(self, "_state", _fakeredis().FakeServer())

    def client(self) -> redis.Redis:
        """Return a bare sync client of its database, to look and to meddle."""
        client: redis.Redis = _fakeredis().FakeRedis(server=self._state)
        return client

    def connector(
        self,
        role: str,  # noqa: ARG002 - nobody lists its clients
        *,
        patience: Patience | None = None,
        observer: Observer | None = None,
    ) -> Connector:
        """Return a sync connector."""
        return Connector(self.client(), self.scripts, patience or Patience(self.timeout), observer)

    def async_connector(
        self,
        role: str,  # noqa: ARG002 - nobody lists its clients
        *,
        patience: Patience | None = None,
        observer: Observer | None = None,
        block: int = 0,  # noqa: ARG002 - it has no deadline for reads
    ) -> AsyncConnector:
        """Return an async connector for the running loop."""
        client = _fakeredis().FakeAsyncRedis(server=self._state)
        return AsyncConnector(client, self.scripts, patience or Patience(self.timeout), observer)


def _fakeredis() -> ModuleType:
    """The library, looked for when a test needs it: it is no part of an installation that runs a bot."""
    try:
        import_module("lupa")  # without it fakeredis knows no EVAL
        return import_module("fakeredis")
    except ImportError as error:
        raise ConfigError(f"redisq.testing needs fakeredis with Lua ({error}): pip install 'redisq-tasks[test]'") from error
