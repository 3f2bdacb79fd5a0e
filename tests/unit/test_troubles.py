"""What does not work is said when that changes."""

from __future__ import annotations

import logging

import pytest

from redisq.errors import AccessDenied, BrokerFull
from redisq.troubles import Troubles


def test_a_trouble_is_said_once_a_state(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    troubles = Troubles(logging.getLogger("test"), lambda: now)
    for text in ("first", "second"):
        troubles.met("claim", AccessDenied(text), logging.ERROR)
        troubles.met("settle", AccessDenied(text))
    now += 3
    assert troubles
    assert "claim" in troubles
    troubles.met("claim", BrokerFull("third"), logging.ERROR)
    now += 2
    troubles.over("claim")
    troubles.over("claim")
    assert "claim" not in troubles
    assert "settle" in troubles
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "Cannot claim, trying again: first"),
        ("WARNING", "Cannot settle, trying again: first"),
        ("ERROR", "Cannot claim, trying again: third"),
        ("WARNING", "Can claim again, after 5 s"),
    ]
