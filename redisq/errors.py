"""Every exception of redisq. All of them are `RedisqError`.

::

    RedisqError
    ├── ConfigError               the app, a task or a URL is set up wrongly
    │   ├── NoServer              no embedded server can be had
    │   └── UnknownTask           no task of that name in this app
    ├── EncodeError               an argument that cannot travel
    │   └── ArgumentsError        arguments that do not fit the task's signature
    ├── CallRefused               a middleware did not let a call be sent
    ├── Retry, Reject             what a handler raises to be tried again, or not any more
    ├── RateLimited               what a handler raises when a platform says "too many requests"
    ├── TaskCancelled             tells a handler in a thread that its job is cancelled, or its lease lost
    ├── TaskTimeout               a handler passed its timeout
    │   └── SoftTimeout           ... its soft one; what a handler in a thread is told by
    ├── JobFailed                 the job is a dead letter
    ├── LaneFull                  the lane has as many messages as its task allows: not sent
    ├── DuplicateJob              a job with the same dedupe key waits already: not sent
    ├── NoResult                  the job has no result to wait for
    ├── JobTimeout                the job was not done in the time that `get` was given
    ├── MessageTooLarge           too many bytes, levels or elements
    ├── DecodeError               bytes that are no message of a version known here
    │   ├── NewerMessage          written by a newer redisq
    │   └── WrongArguments        arguments that do not fit the handler here: another version of the program sent them
    └── BrokerError               what Redis answered, or did not
        ├── BrokerUnavailable     no answer in time; the call may or may not have been carried out
        ├── BrokerFull            out of memory: nothing was changed
        ├── AccessDenied          wrong password, or an ACL rule forbids the command
        ├── WrongServer           the server is not the kind that the URL says (a cluster node, a too old Redis)
        ├── PartlyEnqueued        of many messages Redis took some, and not the others
        ├── QueueConflict         the queue's keys hold something else: another program's, another layout's, a wrong type
        └── ProtocolError         a script refused its arguments: a bug in redisq or in a client of its scripts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from redisq.words import counted

__all__ = [
    "AccessDenied",
    "ArgumentsError",
    "BrokerError",
    "BrokerFull",
    "BrokerUnavailable",
    "CallRefused",
    "ConfigError",
    "DecodeError",
    "DuplicateJob",
    "EncodeError",
    "JobFailed",
    "JobTimeout",
    "LaneFull",
    "MessageTooLarge",
    "NewerMessage",
    "NoResult",
    "NoServer",
    "PartlyEnqueued",
    "ProtocolError",
    "QueueConflict",
    "RateLimited",
    "RedisqError",
    "Reject",
    "Retry",
    "SoftTimeout",
    "TaskCancelled",
    "TaskTimeout",
    "UnknownTask",
    "WrongArguments",
    "WrongServer",
]


class RedisqError(Exception):
    """The root of all that redisq raises."""


class ConfigError(RedisqError):
    """The app, a task or a URL is set up wrongly; the message says what to change."""


class NoServer(ConfigError):
    """`embedded://` has no server: no program for it, or it does not start. The message names the remedies."""


class UnknownTask(ConfigError):
    """No task of that name is registered in this app."""


class EncodeError(RedisqError):
    """An argument that cannot travel to a worker; the message names the task and the argument."""


class ArgumentsError(EncodeError, TypeError):
    """The arguments do not fit the task's signature. Also a `TypeError`, as if the function had been called."""


class CallRefused(RedisqError):
    """A middleware did not let a call be sent. Raised by its `enqueue`, as it is or as a class made from it."""


class Retry(RedisqError):
    """Raised by a handler: this attempt failed, try again.

    Args:
        reason: Words for logs and for `redisq inspect`.
        countdown: Seconds, or a `timedelta`, until then; None: as the task's backoff says.

    Raises:
        ConfigError: The countdown is not a length of time that can be waited for.
    """

    def __init__(self, reason: str = "", *, countdown: float | timedelta | None = None) -> None:
        super().__init__(reason)
        seconds = countdown.total_seconds() if isinstance(countdown, timedelta) else countdown
        if seconds is not None and not 0 <= seconds <= 4_000_000_000:
            raise ConfigError(f"Retry(countdown={countdown!r}): want seconds >= 0, or a timedelta")
        self.countdown = seconds


class Reject(RedisqError):
    """Raised by a handler: no attempt will help. The message becomes a dead letter at once.

    Args:
        reason: Words for logs and for `redisq dead list`.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class RateLimited(RedisqError):
    """Raised by a handler: the platform had enough. No attempt is spent; the gate pauses for all workers, and then it runs again.

    Answers of the common clients are known without it: see `redisq.gates.limited`.

    Args:
        retry_after: Seconds, or a `timedelta`, that the platform asks to wait, as it came: nonsense is bounded, not
            refused. None: it did not say.
        key: The limit to pause: its class (`bot`) or with its instance (`chat:42`). None: one of the task's, by what was
            limited.

    Raises:
        ConfigError: The key is no text.
    """

    def __init__(self, retry_after: float | timedelta | None = None, key: str | None = None) -> None:
        if key is not None and (not isinstance(key, str) or not key):
            raise ConfigError(f'RateLimited(key={key!r}): want the name of a limit: "bot", or "chat:42"')
        asked = "it did not say for how long" if retry_after is None else f"asked to wait {retry_after}"
        super().__init__(f"rate limited{'' if key is None else f' at {key}'}: {asked}")
        self.retry_after = retry_after
        self.key = key


class TaskCancelled(RedisqError):
    """The job was cancelled while it ran, or its lease lost. Raised inside a handler in a thread; a coroutine is cancelled."""


class TaskTimeout(RedisqError, TimeoutError):
    """A handler passed its `timeout`. It counts as a failed attempt."""


class SoftTimeout(TaskTimeout):
    """A handler passed its `soft_timeout`.

    Raised inside a handler that runs in a thread, so that it can tidy up; a coroutine is cancelled instead.
    """


class JobFailed(RedisqError):
    """The job is a dead letter: its reason and its last error, as text. Nothing is rebuilt from it.

    Attributes:
        reason: One word, e.g. `exhausted`, `rejected`, `crashed`.
        text: The last error.
    """

    def __init__(self, job_id: str, reason: str, text: str) -> None:
        super().__init__(f"job {job_id} is a dead letter ({reason}): {text}")
        self.reason = reason
        self.text = text


class LaneFull(RedisqError):
    """A lane has as many messages as its task's `lane_cap` allows.

    Of several calls (`delay_many`) only those whose lanes are full were not sent. If others of them were refused as
    duplicates, that error is the `__cause__`.

    Attributes:
        task: The task.
        refused: The places, from 0, of the calls that were not sent.
        cap: The task's `lane_cap`.
        accepted: The jobs of the calls that were sent.
    """

    def __init__(self, task: str, refused: Sequence[int], cap: int, accepted: Sequence[Any] = ()) -> None:
        calls = counted(len(refused), "call was", "calls were") if accepted or len(refused) > 1 else "the call was"
        others = f", {counted(len(accepted), 'other was', 'others were')}" if accepted else ""
        super().__init__(
            f"task {task}: {calls} not sent{others}: the lane has {counted(cap, 'message')} already (lane_cap); "
            "wait until it is shorter, tell the user, or raise lane_cap"
        )
        self.task = task
        self.refused = refused
        self.cap = cap
        self.accepted = accepted


class DuplicateJob(RedisqError):
    """A job with the same dedupe key waits or runs already, and the task says `dedupe="raise"`.

    Of several calls (`delay_many`) only the duplicates were not sent.

    Attributes:
        task: The task.
        key: The dedupe key of the first duplicate.
        job: The job that has it.
        duplicates: The places, from 0, of the calls that were not sent -> the jobs that have their keys.
        accepted: The jobs of the calls that were sent.
    """

    def __init__(
        self, task: str, key: str, job: Any, duplicates: Mapping[int, Any] | None = None, accepted: Sequence[Any] = ()
    ) -> None:
        count = len(duplicates or (0,))
        others = f" and {counted(count - 1, 'more duplicate')}" if count > 1 else ""
        sent = f", {counted(len(accepted), 'other call was', 'other calls were')}" if accepted else ""
        super().__init__(f"task {task}: not sent{sent}: job {job.id} has the dedupe key {key!r} already{others}")
        self.task = task
        self.key = key
        self.job = job
        self.duplicates = duplicates or {0: job}
        self.accepted = accepted


class NoResult(RedisqError):
    """The job has no result to wait for: it was cancelled, has expired, or its result has."""


class JobTimeout(RedisqError, TimeoutError):
    """The job was not done in the time that `get` was given. It goes on."""


class MessageTooLarge(RedisqError):
    """A message has too many bytes, levels or elements."""


class DecodeError(RedisqError):
    """The bytes are no message that this version reads. The worker keeps them."""


class NewerMessage(DecodeError):
    """The message was written by a newer redisq. The worker puts it aside, for a newer worker."""


class WrongArguments(DecodeError):
    """The arguments of a message do not fit the handler's parameters. The worker puts it aside, for a worker of another version."""


class BrokerError(RedisqError):
    """Redis answered with an error, or not at all.

    Attributes:
        why: The error and the advice, without the call that met it; empty when the text has no more than that.
    """

    why: str = ""


class BrokerUnavailable(BrokerError):
    """Redis gave no answer in time. The call may or may not have been carried out.

    An enqueue is safe to repeat with the same message ids: what is there already is left as it is.
    """


class BrokerFull(BrokerError):
    """Redis is out of memory (`maxmemory`, policy `noeviction`). Nothing was changed."""


class AccessDenied(BrokerError):
    """Redis refused the password, or its ACL forbids a command or key that redisq needs."""


class WrongServer(BrokerError):
    """The server is not of the kind that the URL says, e.g. a Cluster node behind `redis://`."""


class QueueConflict(BrokerError):
    """The queue's keys hold what redisq did not write, or a layout that it does not know. Nothing was changed."""


class PartlyEnqueued(BrokerError):
    """Of many messages Redis took some, and not the others.

    Attributes:
        accepted: The jobs that were stored.
    """

    def __init__(self, accepted: Sequence[Any], total: int, error: BrokerError) -> None:
        super().__init__(f"{len(accepted)} of {total} messages were accepted, then: {error}")
        self.accepted = accepted


class ProtocolError(BrokerError):
    """A script refused its arguments. Nothing was changed. Please report it: callers check before they send."""
