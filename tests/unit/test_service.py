"""Which queues are left alone, and which are overlooked."""

from __future__ import annotations

from typing import Any

import pytest

from redisq.broker.commands import QueueView
from redisq.broker.health import Level, check_work
from redisq.broker.service import Service, is_served, served_queues

LONG, SHORT = 16.0, 14.0


def view(**fields: Any) -> QueueView:
    return QueueView(**{**QueueView(0, 0, 0, 0, 0, False, None, {})._asdict(), **fields})


WAITING = view(waiting=2, oldest_age=LONG)
OVERDUE = view(delayed=2, overdue=1, overdue_age=LONG, oldest_age=LONG)
EXPIRED = view(processing=1, expired=1, expired_age=LONG, oldest_age=LONG)


@pytest.mark.parametrize(
    ("seen", "served", "alone", "overlooked"),
    [
        (view(), False, False, False),
        (view(delayed=3), False, False, False),
        (WAITING, False, True, False),
        (WAITING, True, False, False),
        (WAITING._replace(oldest_age=SHORT), False, False, False),
        (WAITING._replace(paused=True), False, False, False),
        (OVERDUE, False, True, False),
        (OVERDUE, True, False, True),
        (OVERDUE._replace(overdue_age=SHORT), True, False, False),
        (OVERDUE._replace(processing=1), True, False, False),
        (EXPIRED, False, True, False),
        (EXPIRED, True, False, True),
        (EXPIRED._replace(processing=2), True, False, False),
    ],
)
def test_who_is_missed(seen: QueueView, served: bool, alone: bool, overlooked: bool) -> None:
    service = Service(seen, served)
    assert (service.is_left_alone, service.is_overlooked) == (alone, overlooked)
    assert check_work({"q": service}).level is (Level.ERROR if alone or overlooked else Level.OK)


def test_a_worker_serves_the_queues_that_it_names_and_those_that_it_has_leases_of() -> None:
    served = served_queues({"w": {"queues": ["a", "b"]}, "other": {}, "odd": {"queues": "a"}})
    assert served == {"a", "b"}
    assert is_served("a", WAITING, served)
    assert not is_served("c", WAITING, served)
    assert is_served("c", WAITING._replace(processing=1), served)
    assert not is_served("c", EXPIRED, served)


def test_the_finding_says_what_there_is_and_what_to_do() -> None:
    text = check_work({"q": Service(OVERDUE._replace(waiting=3), False), "r": Service(EXPIRED, True)}).text
    assert text == (
        "q: 3 waiting, 1 overdue by 16 s; the oldest for 16 s, and no living worker serves it: start one with"
        " `redisq worker MODULE:APP -Q q`; r: 1 with a lease that ended 16 s ago; the oldest for 16 s, and its workers"
        " run nothing of it: see `redisq workers` for one that does not answer"
    )
