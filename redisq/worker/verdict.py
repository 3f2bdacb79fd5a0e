"""How a delivery ends when its handler did not return, or could not be called."""

from __future__ import annotations

from collections.abc import Callable

from redisq.app.settings import TaskOptions
from redisq.backoff import Backoff
from redisq.broker.commands import Settlement
from redisq.errors import DecodeError, NewerMessage, RedisqError
from redisq.message import Delivery
from redisq.redact import error_text

__all__ = ["MAX_PARKS", "after_failure", "unreadable"]

#: A message that no worker could make sense of so many times is a dead letter: half an hour and more.
MAX_PARKS = 10

_PARK = Backoff(first=5.0, cap=300.0)


def after_failure(options: TaskOptions, delivery: Delivery, error: BaseException, random: Callable[[], float]) -> Settlement:
    """Another attempt after its backoff, or a dead letter when the retries are used up."""
    attempt = delivery.meta.attempt
    if attempt > options.max_retries:
        return Settlement("dead", delivery.id, delivery.fence, 0, "exhausted", error_text(error))
    delay = Backoff(options.retry_backoff, options.retry_backoff_max).delay(attempt, random)
    return Settlement("retry", delivery.id, delivery.fence, _microseconds(delay), "failed", error_text(error))


def unreadable(delivery: Delivery, error: RedisqError, random: Callable[[], float]) -> Settlement:
    """Kept in any case: put aside for a worker that may know it, a dead letter in the end; at once if no worker ever will."""
    reason = "unknown_task"
    if isinstance(error, NewerMessage):
        reason = "newer_message"
    elif isinstance(error, DecodeError):
        reason = "undecodable"
    if reason == "undecodable" or delivery.meta.parks >= MAX_PARKS:
        return Settlement("dead", delivery.id, delivery.fence, 0, reason, error_text(error))
    delay = _PARK.delay(delivery.meta.parks + 1, random)
    return Settlement("park", delivery.id, delivery.fence, _microseconds(delay), reason, error_text(error))


def _microseconds(seconds: float) -> int:
    # Never zero: no retry comes at once (I13b).
    return max(1, round(seconds * 1_000_000))
