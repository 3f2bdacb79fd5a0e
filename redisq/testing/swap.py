"""Put an app on another server for a while. The one file that reaches into an app for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from redisq.app.app import RedisQ
from redisq.app.calls import Calls
from redisq.app.outbox import Outbox
from redisq.app.shared import SHARED
from redisq.broker.connection import Server

__all__ = ["swapped", "with_jitter", "without_limits"]


@contextmanager
def swapped(app: RedisQ, server: Server) -> Iterator[None]:
    """The app's calls go to this server; shared tasks go through this app. Afterwards all is as it was."""
    before = app._server, app._connector, app._loops
    current = SHARED._current
    app._server, app._connector, app._loops = server, None, app._new_loops()
    SHARED.set_current(app)
    try:
        yield
    finally:
        app.close()
        app._server, app._connector, app._loops = before
        SHARED._current = current


@contextmanager
def without_limits(app: RedisQ) -> Iterator[None]:
    """The app's calls are counted in no limit; their lanes, caps and dedupe keys stay."""
    outbox = app._outbox

    def unlimited(calls: Calls) -> Outbox:
        return outbox(calls._replace(gating=calls.gating and calls.gating.at_the_door_alone(lane=True)))

    with patch.object(app, "_outbox", unlimited):
        yield


@contextmanager
def with_jitter(app: RedisQ, share: float) -> Iterator[None]:
    """The waits of the app's retries lose this share of their jitter."""
    with patch.object(app, "settings", replace(app.settings, jitter=share)):
        yield
