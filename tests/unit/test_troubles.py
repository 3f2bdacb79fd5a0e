"""What does not work is said when that changes."""

from __future__ import annotations

import logging

import pytest

from redisq.errors import AccessDenied, BrokerFull, BrokerUnavailable
from redisq.kombu.outage import Outage, OutageTroubles
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


def test_an_outage_is_said_once_for_all_threads_and_a_late_failure_begins_no_new_one(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = Outage(lambda: now)
    claims, keeper = (OutageTroubles(logging.getLogger("test"), outage) for _ in range(2))
    away = BrokerUnavailable("refused")
    claims.met("claim", away)
    keeper.met("settle", away)
    keeper.met("renew", AccessDenied("no"))
    assert claims
    now += 7
    keeper.over("settle")
    claims.over("claim")
    keeper.met("settle", away)  # sent before the end
    assert not claims
    now += 60
    keeper.met("settle", away)
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is away, waiting for it: refused",
        "Cannot renew, trying again: no",
        "Redis is back, after 7 s",
        "Redis is away, waiting for it: refused",
    ]
