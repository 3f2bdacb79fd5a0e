"""What one app is set to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from redisq.errors import ConfigError
from redisq.types import MAX_MICROSECONDS, Seconds, check_name, microseconds

__all__ = ["NOW", "SendOptions", "Settings", "TaskOptions", "check_priority", "due_text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an app.

    Attributes:
        namespace: Put before each of its queues' keys; empty for none.
        default_queue: For tasks that name none.
        lease: Microseconds that a lease lasts unless it is extended.
        priority_step: Microseconds of head start for each step of priority.
        max_deliveries: A message whose worker died this often is a dead letter.
    """

    namespace: str
    default_queue: str
    lease: int
    priority_step: int
    max_deliveries: int

    def __post_init__(self) -> None:
        # An idle queue is looked at once a second, and silence of half a lease is taken for a gap of the server (I12).
        if self.lease < 3_000_000:
            raise ConfigError(f"lease={self.lease / 1_000_000:g}: want 3 s at least")
        # 255 steps together make a year: every score stays positive and exact.
        if self.priority_step > 31_536_000_000_000 // 255:
            raise ConfigError(f"priority_step={self.priority_step / 1_000_000:g}: want 123,670 s (34 hours) at most")
        if type(self.max_deliveries) is not int or self.max_deliveries < 1:
            raise ConfigError(f"max_deliveries={self.max_deliveries!r}: want a whole number > 0")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a task is set to by its decorator.

    Attributes:
        name: What messages call it.
        queue: Where its messages go.
        max_retries: Retries after the first run.
        retry_backoff: Seconds before the first retry; doubles from there, less a jitter of up to half.
        retry_backoff_max: The longest wait, in seconds.
        timeout: Seconds after which its lease is not extended any more; None for no end.
        priority: 0 to 255, higher first.
    """

    name: str
    queue: str
    max_retries: int = 3
    retry_backoff: float = 5.0
    retry_backoff_max: float = 600.0
    timeout: float | None = 900.0
    priority: int = 0

    def __post_init__(self) -> None:
        check_name("task", self.name)
        check_name("queue", self.queue)
        if type(self.max_retries) is not int or self.max_retries < 0:
            raise ConfigError(f"task {self.name}: max_retries={self.max_retries!r}: want a whole number >= 0")
        for what, value in (("retry_backoff", self.retry_backoff), ("retry_backoff_max", self.retry_backoff_max)):
            if not microseconds(value, f"task {self.name}: {what}"):
                raise ConfigError(f"task {self.name}: {what}={value!r}: no retry comes at once, give it more than 0 s")
        if self.timeout is not None and not microseconds(self.timeout, f"task {self.name}: timeout"):
            raise ConfigError(f"task {self.name}: timeout=0: want seconds > 0, or None for no end")
        check_priority(self.priority)


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What one call is set to. `due` is as the `enqueue` script takes it."""

    due: str = "0"
    priority: int | None = None


#: A call that says nothing.
NOW = SendOptions()


def check_priority(priority: int) -> int:
    """Return the priority if it is one.

    Raises:
        ConfigError: It is not a whole number from 0 to 255.
    """
    if type(priority) is not int or not 0 <= priority <= 255:
        raise ConfigError(f"priority={priority!r}: want a whole number from 0 to 255, higher first")
    return priority


def due_text(countdown: Seconds | None, eta: datetime | None) -> str:
    """Return when a message is due, as the `enqueue` script takes it.

    Raises:
        ConfigError: Both are given, the time has no zone, or it lies too far ahead.
    """
    if eta is not None:
        if countdown is not None:
            raise ConfigError("give countdown= or eta=, not both")
        if eta.tzinfo is None:
            raise ConfigError(f"eta={eta.isoformat()}: without a time zone it may mean any of 24 hours; use an aware datetime")
        at = (eta - _EPOCH) // _MICROSECOND
        if at > MAX_MICROSECONDS:
            raise ConfigError(f"eta={eta.isoformat()}: want a time before the year 2255")
        return str(max(at, 0))
    if countdown is None:
        return "0"
    delay = microseconds(countdown, "countdown")
    if delay > MAX_MICROSECONDS // 2:
        raise ConfigError(f"countdown={countdown!r}: want less than 142 years")
    return f"+{delay}" if delay else "0"
