from __future__ import annotations

import pytest

from redisq.app.settings import TaskOptions
from redisq.errors import DecodeError, NewerMessage, Reject, Retry, UnknownTask, WrongArguments
from redisq.message import Delivery, Meta
from redisq.worker.verdict import MAX_PARKS, after_failure, unreadable


def delivery(**meta: int) -> Delivery:
    return Delivery("id", 7, b"", Meta(**meta))


def test_a_failure_is_retried_with_doubling_delays_and_then_dead() -> None:
    options = TaskOptions("t", "q", max_retries=3, retry_backoff=5, retry_backoff_max=15)
    ends = [after_failure(options, delivery(attempt=attempt), ValueError("no"), lambda: 0.0) for attempt in (1, 2, 3, 4)]
    assert [(end.op, end.delay) for end in ends] == [
        ("retry", 5_000_000),
        ("retry", 10_000_000),
        ("retry", 15_000_000),
        ("dead", 0),
    ]
    assert {end.text for end in ends} == {"ValueError: no"}
    assert ends[-1].reason == "exhausted"


def test_the_jitter_takes_up_to_half_and_never_all() -> None:
    options = TaskOptions("t", "q", retry_backoff=5)
    assert after_failure(options, delivery(), ValueError(), lambda: 0.999999).delay == pytest.approx(2_500_000, rel=1e-3)
    tiny = TaskOptions("t", "q", retry_backoff=0.000001)
    assert after_failure(tiny, delivery(), ValueError(), lambda: 0.999999).delay >= 1


def test_a_task_without_retries_dies_at_its_first_failure() -> None:
    assert after_failure(TaskOptions("t", "q", max_retries=0), delivery(), ValueError(), lambda: 0.0).op == "dead"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnknownTask("t"), "unknown_task"),
        (NewerMessage("2"), "newer_message"),
        (WrongArguments("task t: missing a required argument"), "wrong_arguments"),
    ],
)
def test_what_another_worker_may_know_is_put_aside_and_dead_only_in_the_end(error: Exception, reason: str) -> None:
    assert isinstance(error, UnknownTask | NewerMessage | WrongArguments)
    first = unreadable(delivery(), error, lambda: 0.0)
    assert (first.op, first.reason, first.delay) == ("park", reason, 5_000_000)
    last = unreadable(delivery(parks=MAX_PARKS), error, lambda: 0.0)
    assert (last.op, last.reason) == ("dead", reason)


def test_what_no_worker_will_ever_read_is_dead_at_once() -> None:
    assert unreadable(delivery(), DecodeError("not msgpack"), lambda: 0.0)[0::4] == ("dead", "undecodable")


def _group(*errors: Exception) -> Exception:
    """As task groups in task groups raise them."""
    return ExceptionGroup("outer", [ExceptionGroup("inner", list(errors))])


@pytest.mark.parametrize(
    ("errors", "op", "reason", "delay"),
    [
        ((Reject("blocked"), ValueError()), "dead", "rejected", 0),
        ((ValueError(), Reject("blocked"), Retry(countdown=5)), "dead", "rejected", 0),
        ((Retry(countdown=5), Retry(countdown=7), ValueError()), "retry", "failed", 7_000_000),
        ((KeyError(), ValueError()), "dead", "not_retried", 0),
    ],
)
def test_what_a_handler_decided_counts_inside_of_a_group_too(
    errors: tuple[Exception, ...], op: str, reason: str, delay: int
) -> None:
    options = TaskOptions("t", "q", dont_retry_for=(KeyError,))
    settlement = after_failure(options, delivery(), _group(*errors), lambda: 0.0)
    assert (settlement.op, settlement.reason, settlement.delay) == (op, reason, delay)


class Forbidden(Exception):
    """As a client of Telegram raises it."""

    __module__ = "telegram.error"


class SendFailed(Exception):
    """As an app wraps the errors of its clients."""


def _wrapped(text: str, *causes: str) -> Exception:
    cause: Exception | None = None
    for each in causes:
        error = Forbidden(each)
        error.__cause__, cause = cause, error
    wrapper = SendFailed(text)
    wrapper.__cause__ = cause
    return wrapper


TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Forbidden("bot was blocked"), "Forbidden: bot was blocked"),
        (_wrapped("to chat 42", "bot was blocked"), "SendFailed: to chat 42 (because of Forbidden: bot was blocked)"),
        (_wrapped("", f"{TOKEN}\nno"), "SendFailed (because of Forbidden: ***\\x0ano)"),
        (
            ExceptionGroup("all", [_wrapped("", "one"), Forbidden("one"), Forbidden("two"), Forbidden("three"), Forbidden("4")]),
            "ExceptionGroup: all (5 sub-exceptions) (because of Forbidden: one, Forbidden: two, Forbidden: three and 1 more)",
        ),
    ],
)
def test_dead_letter_names_the_error_inside_that_no_retry_cures(error: Exception, text: str) -> None:
    end = after_failure(TaskOptions("t", "q"), delivery(), error, lambda: 0.0)
    assert (end.op, end.reason, end.text) == ("dead", "permanent", text)


def test_long_text_of_the_wrapper_leaves_room_for_the_error_inside() -> None:
    end = after_failure(TaskOptions("t", "q"), delivery(), _wrapped("x" * 9000, "blocked" + "y" * 9000), lambda: 0.0)
    assert len(end.text) == 500
    assert "x" * 300 in str(end.text)
    assert "(because of Forbidden: blocked" in str(end.text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (TaskOptions("t", "q", dont_retry_for=(KeyError,)), "KeyError: 'no chat'"),
        (TaskOptions("t", "q", autoretry_for=(OSError,)), "KeyError: 'no chat', ValueError: no"),
    ],
)
def test_dead_letter_names_the_errors_of_a_group_that_are_not_retried(options: TaskOptions, named: str) -> None:
    error = _group(OSError("away"), KeyError("no chat"), ValueError("no"))
    end = after_failure(options, delivery(), error, lambda: 0.0)
    assert (end.op, end.reason) == ("dead", "not_retried")
    assert end.text == f"ExceptionGroup: outer (1 sub-exception) (because of {named})"


def test_a_group_of_other_errors_is_tried_again() -> None:
    assert after_failure(TaskOptions("t", "q"), delivery(), _group(ValueError(), KeyError()), lambda: 0.0).op == "retry"
