"""How a delivery ends: what its handler returned or raised, or why it could not be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from redisq.app.settings import TaskOptions
from redisq.app.task import Task
from redisq.backoff import Backoff
from redisq.broker.commands import Settlement
from redisq.codec.arrival import encode_result
from redisq.codec.limits import check_limits
from redisq.errors import DecodeError, NewerMessage, RedisqError, Reject, Retry, WrongArguments
from redisq.gates.permanent import permanent_in
from redisq.message import Delivery
from redisq.redact import error_text
from redisq.words import counted
from redisq.worker.frames import stack

__all__ = [
    "MAX_PARKS",
    "NOT_IMPORTABLE",
    "after_crash",
    "after_failure",
    "after_success",
    "decision_in",
    "done",
    "not_begun",
    "suspected",
    "undecided",
    "unreadable",
]

#: The reason of a message whose task a process of its own could not import.
NOT_IMPORTABLE = "not_importable"

#: A message that no worker could make sense of so many times is a dead letter: after some twenty minutes.
MAX_PARKS = 10

_CRASH = Backoff(first=2.0, cap=60.0)
_PARK = Backoff(first=5.0, cap=300.0)


def after_success(task: Task[..., Any], delivery: Delivery, returned: Any, max_bytes: int) -> Settlement:
    """Done, with the result where the task keeps it.

    Raises:
        EncodeError: The result cannot travel, or would arrive as something else.
        MessageTooLarge: It has too many bytes.
    """
    ttl = task.definition.result_ttl
    if ttl is None:
        return done(delivery)
    result = encode_result(task.name, returned, task.shape)
    check_limits(result, max_bytes)
    return Settlement("result", delivery.id, delivery.fence, _microseconds(ttl), "none", result)


def done(delivery: Delivery) -> Settlement:
    """Done, and forgotten."""
    return Settlement("ack", delivery.id, delivery.fence)


def after_failure(options: TaskOptions, delivery: Delivery, error: BaseException, random: Callable[[], float]) -> Settlement:
    """Another attempt after its backoff, or a dead letter when none will help or none is left."""
    attempt = delivery.meta.attempt
    error = decision_in(error)
    reason, proofs = _hopeless(options, error)
    if not reason and attempt > options.max_retries:
        reason = "exhausted"
    if reason:
        return Settlement("dead", delivery.id, delivery.fence, 0, reason, error_text(error, proofs), stack(error))
    delay = Backoff(options.retry_backoff, options.retry_backoff_max).delay(attempt, random)
    if isinstance(error, Retry) and error.countdown is not None:
        delay = error.countdown
    return Settlement("retry", delivery.id, delivery.fence, _microseconds(delay), "failed", error_text(error), stack(error))


def _hopeless(options: TaskOptions, error: BaseException) -> tuple[str, Sequence[BaseException]]:
    """Return why no attempt will help, in one word, and the errors that say so; empty if one may."""
    if isinstance(error, Reject):
        return "rejected", ()
    if isinstance(error, Retry):
        return "", ()
    parts = list(_parts(error))
    never = [each for each in (error, *parts) if isinstance(each, options.dont_retry_for)]
    if never:
        return "not_retried", never
    if not isinstance(error, options.autoretry_for):
        others = [each for each in parts if not isinstance(each, options.autoretry_for)]
        if others:
            return "not_retried", others
    # Whoever names the class of an error wants it retried.
    named = tuple(kind for kind in options.autoretry_for if kind not in (BaseException, Exception))
    if options.retry_permanent or isinstance(error, named):
        return "", ()
    proofs = permanent_in(error)
    return "permanent" if proofs else "", proofs


def decision_in(error: BaseException) -> BaseException:
    """Return the `Reject` or `Retry` that a group holds (`asyncio.TaskGroup`), however deep; else the error itself.

    A `Reject` counts before a `Retry`, and of several retries the one with the longest countdown.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    parts = list(_parts(error))
    rejects = [each for each in parts if isinstance(each, Reject)]
    retries = [each for each in parts if isinstance(each, Retry)]
    if rejects:
        return rejects[0]
    return max(retries, key=lambda each: each.countdown or 0.0) if retries else error


def _parts(error: BaseException) -> Iterator[BaseException]:
    """Give the errors of a group, those of groups in it too; of another error, itself."""
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left += reversed(each.exceptions)
        else:
            yield each


def after_crash(delivery: Delivery, max_crashes: int, how: str, random: Callable[[], float]) -> Settlement:
    """Its process died: one more crash; a dead letter when that is too often."""
    crashes = delivery.meta.crashes + 1
    if crashes >= max_crashes:
        text = f"the worker died or lost its lease {counted(crashes, 'time')}; at last: {how}"
        return Settlement("dead", delivery.id, delivery.fence, 0, "crashed", text)
    return Settlement("crash", delivery.id, delivery.fence, _microseconds(_CRASH.delay(crashes, random)), "crashed", how)


def undecided(options: TaskOptions, delivery: Delivery, fault: Exception) -> Settlement:
    """It failed, and the look at its error did too: another attempt in the longest time, or a dead letter after the last."""
    is_last = delivery.meta.attempt > options.max_retries
    op, delay, reason = ("dead", 0, "exhausted") if is_last else ("retry", _microseconds(options.retry_backoff_max), "failed")
    return Settlement(op, delivery.id, delivery.fence, delay, reason, error_text(fault), stack(fault))


def suspected(delivery: Delivery, why: str) -> Settlement:
    """A dead letter: it was there when too many workers died, and cannot run where it would harm no other."""
    text = f"it was there when {counted(delivery.meta.crashes, 'worker')} died, and cannot run apart: {why}"
    return Settlement("dead", delivery.id, delivery.fence, 0, "suspected", text)


def unreadable(delivery: Delivery, error: RedisqError, random: Callable[[], float]) -> Settlement:
    """Kept in any case: put aside for a worker that may know it, and a dead letter at once if no worker ever will."""
    reason = "unknown_task"
    if isinstance(error, NewerMessage):
        reason = "newer_message"
    elif isinstance(error, WrongArguments):
        reason = "wrong_arguments"
    elif isinstance(error, DecodeError):
        reason = "undecodable"
    if reason == "undecodable":
        return Settlement("dead", delivery.id, delivery.fence, 0, reason, error_text(error))
    return not_begun(delivery, reason, error_text(error), random)


def not_begun(delivery: Delivery, reason: str, text: str, random: Callable[[], float]) -> Settlement:
    """Put aside for a worker that can begin it, with no attempt spent; a dead letter when none could so many times."""
    if delivery.meta.parks >= MAX_PARKS:
        return Settlement("dead", delivery.id, delivery.fence, 0, reason, text)
    delay = _PARK.delay(delivery.meta.parks + 1, random)
    return Settlement("park", delivery.id, delivery.fence, _microseconds(delay), reason, text)


def _microseconds(seconds: float) -> int:
    # Never zero: no retry comes at once (I13b).
    return max(1, round(seconds * 1_000_000))
