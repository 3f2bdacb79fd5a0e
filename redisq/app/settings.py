"""What one app is set to."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from redisq.errors import ConfigError
from redisq.gates.descriptor import Cost
from redisq.types import MAX_MICROSECONDS, Seconds, check_name, microseconds

__all__ = ["NOW", "SendOptions", "Settings", "TaskOptions", "check_priority", "send_options"]

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
        max_deliveries: A message whose worker died this often is a dead letter. While it runs apart, in a process of its own,
            only the death of that counts, and twice as many of the worker.
        max_bytes: A message, or a result, has no more bytes than this.
        jitter: The share of their jitter that the waits of retries lose, from 0 to 1; None: a random one each time.
    """

    namespace: str
    default_queue: str
    lease: int
    priority_step: int
    max_deliveries: int
    max_bytes: int
    jitter: float | None = None

    def __post_init__(self) -> None:
        # An idle queue is looked at once a second, and silence of half a lease is taken for a gap of the server (I12).
        if self.lease < 3_000_000:
            raise ConfigError(f"lease={self.lease / 1_000_000:g}: want 3 s at least")
        # 255 steps together make a year: every score stays positive and exact.
        if self.priority_step > 31_536_000_000_000 // 255:
            raise ConfigError(f"priority_step={self.priority_step / 1_000_000:g}: want 123,670 s (34 hours) at most")
        if type(self.max_deliveries) is not int or self.max_deliveries < 1:
            raise ConfigError(f"max_deliveries={self.max_deliveries!r}: want a whole number > 0")
        if type(self.max_bytes) is not int or not 0 < self.max_bytes <= 512 * 1024 * 1024:
            raise ConfigError(f"max_bytes={self.max_bytes!r}: want 1 to 536870912, the most that Redis stores under one name")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a task is set to by its decorator.

    Attributes:
        name: What messages call it.
        queue: Where its messages go; None: to the queue that is named after the app.
        max_retries: Retries after the first run.
        retry_backoff: Seconds before the first retry; doubles from there, less a jitter of up to half.
        retry_backoff_max: The longest wait, in seconds.
        timeout: Seconds after which the handler is stopped, and the attempt has failed; None for no end. A handler in a
            thread can only be told (`SoftTimeout`): if it does not end, its slot is lost until it does.
        soft_timeout: Seconds after which the handler is told: a coroutine is cancelled, a thread gets `SoftTimeout`.
        priority: 0 to 255, higher first.
        expires: Seconds after the call; a message that waited longer is dropped, and counted; None: never.
        autoretry_for: Errors that are tried again; others make a dead letter at once.
        dont_retry_for: Of those, the exceptions.
        retry_permanent: Whether errors are retried that no retry cures, such as a 403 "bot was blocked by the user"; see
            `redisq.gates.permanent`. Else they make a dead letter at once.
        ack: `late`: when the handler has ended (at least once). `early`: before it starts (at most once).
        pool: `process`: it runs in a process of its own, for code that holds the interpreter or may crash it; None: a
            coroutine in the worker's loop, a plain function in one of its threads.
        result_ttl: Seconds that what the handler returns is kept for `Job.get`; None: it is not kept.
        bind: The handler's first parameter is the job's `Context`; callers do not give it.
        key: Its lane: a template over the arguments (`"{chat_id}"`) or a function of some of them. Calls with the same key run
            one at a time, in the order in which they were sent, also across retries.
        limits: What it may use up: `"bot:30/s"`, `"chat:{chat_id}:1/s burst 3"`, `"llm: 8 at once"`; see `redisq.gates.limit`.
        cost: What a call takes out of a rate: a number, the name of the argument that has it, or a function; by limit when
            there are several: `{"tokens": "n_tokens"}`.
        on_dead: When the first of a lane is dead for good: `continue` with the next, or `hold` the lane for an operator.
        group: Queues whose tasks have the same `group` share their limits: one budget, one pause, one set of rules. None: the
            limits are its queue's, unless another task puts that queue in a group.
        lane_cap: So many messages wait and run in one lane; for more, `LaneFull` is raised. None: any number.
        dedupe_key: Once at the door: a template or a function, as `key`. While a call with the same key waits or runs, it
            stands for the next one.
        dedupe_ttl: Seconds that a key is kept at least, however soon its call is done; None: until then.
        dedupe: What becomes of a second call: `return`: nothing, and its caller gets the job of the first. `replace`: the
            first gets its arguments, while it waits. `extend`: and its due time too. `raise`: `DuplicateJob`.
    """

    name: str
    queue: str | None = None
    max_retries: int = 3
    retry_backoff: float = 5.0
    retry_backoff_max: float = 600.0
    timeout: float | None = 900.0
    soft_timeout: float | None = None
    priority: int = 0
    expires: float | None = None
    autoretry_for: tuple[type[BaseException], ...] = (Exception, SystemExit, CancelledError)
    dont_retry_for: tuple[type[BaseException], ...] = ()
    retry_permanent: bool = False
    ack: str = "late"
    result_ttl: float | None = None
    pool: str | None = None
    bind: bool = False
    key: str | Callable[..., Any] | None = None
    limits: Sequence[str] = ()
    cost: Cost | None = None
    group: str | None = None
    on_dead: Literal["continue", "hold"] = "continue"
    lane_cap: int | None = None
    dedupe_key: str | Callable[..., Any] | None = None
    dedupe_ttl: Seconds | None = None
    dedupe: Literal["return", "replace", "extend", "raise"] = "return"

    def __post_init__(self) -> None:
        check_name("task", self.name)
        if self.queue is not None:
            check_name("queue", self.queue)
        if self.group is not None:
            check_name("group", self.group)
        if type(self.max_retries) is not int or self.max_retries < 0:
            raise ConfigError(f"task {self.name}: max_retries={self.max_retries!r}: want a whole number >= 0")
        for what, value in (("retry_backoff", self.retry_backoff), ("retry_backoff_max", self.retry_backoff_max)):
            if not microseconds(value, f"task {self.name}: {what}"):
                raise ConfigError(f"task {self.name}: {what}={value!r}: no retry comes at once, give it more than 0 s")
        if self.timeout is not None and not microseconds(self.timeout, f"task {self.name}: timeout"):
            raise ConfigError(f"task {self.name}: timeout=0: want seconds > 0, or None for no end")
        if self.soft_timeout is not None and not 0 < self.soft_timeout < (self.timeout or float("inf")):
            raise ConfigError(f"task {self.name}: soft_timeout={self.soft_timeout!r}: want seconds > 0, less than timeout")
        check_priority(self.priority)
        for what, seconds in (("expires", self.expires), ("result_ttl", self.result_ttl)):
            if seconds is not None and not microseconds(seconds, f"task {self.name}: {what}"):
                raise ConfigError(f"task {self.name}: {what}=0: want seconds > 0, or None")
        for what, kinds in (("autoretry_for", self.autoretry_for), ("dont_retry_for", self.dont_retry_for)):
            if not isinstance(kinds, tuple) or not all(
                isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
            ):
                raise ConfigError(f"task {self.name}: {what}={kinds!r}: want a tuple of exception classes")
        if self.pool not in (None, "process"):
            raise ConfigError(f"task {self.name}: pool={self.pool!r}: want 'process', or None for the loop and the threads")
        if self.ack not in ("late", "early"):
            raise ConfigError(f"task {self.name}: ack={self.ack!r}: want 'late' (at least once) or 'early' (at most once)")
        if self.dedupe not in ("return", "replace", "extend", "raise"):
            raise ConfigError(f"task {self.name}: dedupe={self.dedupe!r}: want 'return', 'replace', 'extend' or 'raise'")
        if self.dedupe_ttl is not None and not microseconds(self.dedupe_ttl, f"task {self.name}: dedupe_ttl"):
            raise ConfigError(f"task {self.name}: dedupe_ttl=0: want seconds > 0, or None")
        if self.dedupe_key is None and (self.dedupe_ttl is not None or self.dedupe != "return"):
            raise ConfigError(f"task {self.name}: dedupe= and dedupe_ttl= are about a key; give it one with dedupe_key=")


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What one call is set to; None: as its task is. `due` and `expires` are as the `enqueue` script takes them."""

    due: str = "0"
    priority: int | None = None
    expires: str | None = None
    queue: str | None = None


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


def send_options(
    base: SendOptions,
    *,
    countdown: Seconds | None = None,
    eta: datetime | None = None,
    expires: Seconds | datetime | None = None,
    priority: int | None = None,
    queue: str | None = None,
) -> SendOptions:
    """Return the options with those that are given put in place.

    Raises:
        ConfigError: One is out of range, or both `countdown` and `eta` are given.
    """
    changes: dict[str, Any] = {}
    if countdown is not None and eta is not None:
        raise ConfigError("give countdown= or eta=, not both")
    if countdown is not None:
        changes["due"] = _from_now(countdown, "countdown")
    if eta is not None:
        changes["due"] = _at(eta, "eta")
    if isinstance(expires, datetime):
        changes["expires"] = _at(expires, "expires")
    elif expires is not None:
        changes["expires"] = _from_now(expires, "expires")
        if changes["expires"] == "0":
            raise ConfigError("expires=0: the message could never run; want seconds > 0, a timedelta or a datetime")
    if priority is not None:
        changes["priority"] = check_priority(priority)
    if queue is not None:
        changes["queue"] = check_name("queue", queue)
    return replace(base, **changes) if changes else base


def _at(time: datetime, what: str) -> str:
    """A time, as scripts take it; in the past: 1, which is past as well, where 0 would mean that there is none."""
    if time.tzinfo is None:
        raise ConfigError(f"{what}={time.isoformat()}: without a time zone it may mean any of 24 hours; use an aware datetime")
    at = (time - _EPOCH) // _MICROSECOND
    if at > MAX_MICROSECONDS:
        raise ConfigError(f"{what}={time.isoformat()}: want a time before the year 2255")
    return str(max(at, 1))


def _from_now(delay: Seconds, what: str) -> str:
    """A delay, as scripts take it."""
    length = microseconds(delay, what)
    if length > MAX_MICROSECONDS // 2:
        raise ConfigError(f"{what}={delay!r}: want less than 142 years")
    return f"+{length}" if length else "0"
