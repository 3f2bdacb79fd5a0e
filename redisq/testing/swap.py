"""Put an app on another server for a while. The one file that reaches into an app for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from redisq.app.app import RedisQ
from redisq.app.shared import SHARED
from redisq.broker.connection import Server

__all__ = ["swapped"]


@contextmanager
def swapped(app: RedisQ, server: Server) -> Iterator[None]:
    """The app's calls go to this server; shared tasks go through this app. Afterwards all is as it was."""
    before = app._server, app._connector, app._async_connectors
    current = SHARED._current
    app._server, app._connector, app._async_connectors = server, None, WeakKeyDictionary()
    SHARED.set_current(app)
    try:
        yield
    finally:
        app.close()
        app._server, app._connector, app._async_connectors = before
        SHARED._current = current
