"""How long leases are extended."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from redisq.broker.keys import QueueKeys
from redisq.errors import BrokerUnavailable
from redisq.message import PLAIN, Delivery
from redisq.troubles import Troubles
from redisq.worker.held import Held
from redisq.worker.renewer import Renewer

KEYS = QueueKeys("q", "q")
LEASE = 30_000_000


class Line:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.extended: dict[str, int] = {}

    def execute(self, command: Any) -> dict[str, str]:
        lease, *pairs = command.args
        self.extended.update(dict.fromkeys(pairs[::2], int(lease)))
        return {}


def held(id: str, until: float | None) -> Held:
    one = Held(KEYS, Delivery(id, 7, b"", PLAIN))
    one.until = until
    return one


def test_a_lease_is_extended_no_longer_than_its_task_may_run() -> None:
    line: Any = Line()
    all_held = [held("no end", None), held("far", 200.0), held("near", 112.9), held("now", 100.9), held("over", 99.0)]
    loop = asyncio.new_event_loop()
    log = logging.getLogger("test")
    Renewer(line, LEASE, lambda: all_held, print, print, loop, Troubles(log), log, now=lambda: 100.0).renew()
    loop.close()
    assert line.extended == {"no end": LEASE, "far": LEASE, "near": 12_000_000}


def test_it_goes_on_after_any_error(caplog: pytest.LogCaptureFixture) -> None:
    extended = threading.Event()

    class Failing(Line):
        rounds = 0

        def execute(self, command: Any) -> dict[str, str]:
            self.rounds += 1
            if self.rounds == 1:
                raise AttributeError("no such thing")
            if self.rounds < 4:
                raise BrokerUnavailable("away")
            extended.set()
            return super().execute(command)

        def close(self) -> None:
            pass

    line: Any = Failing()
    loop = asyncio.new_event_loop()
    log = logging.getLogger("test")
    renewer = Renewer(line, 30_000, lambda: [held("one", None)], print, print, loop, Troubles(log), log)
    renewer.start()
    assert extended.wait(10)
    renewer.stop()
    loop.close()
    assert "AttributeError: no such thing" in caplog.text
    assert caplog.text.count("Cannot extend leases of queue q, trying again: away") == 1
