"""What each error of Redis and redis-py means: try again, or which error of ours it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis import exceptions as redis_errors

from redisq import errors

__all__ = ["CONNECTION_ERRORS", "FAULTS", "TROUBLE", "Fault", "classify", "raise_if_told"]

#: What redis-py, and the sockets below it, raise.
TROUBLE: tuple[type[Exception], ...] = (redis_errors.RedisError, OSError)

#: What redis-py raises when no connection can be had, for the kombu transport, whose users catch these.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.AuthenticationError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of error.

    Attributes:
        error: What the caller gets, at once or when the time for retries is over.
        retry: Whether waiting can help. Every command is safe to repeat.
        reconnect: Whether the present connections are of no use any more.
        advice: What to do, for the error's text.
    """

    error: type[errors.BrokerError]
    retry: bool = False
    reconnect: bool = False
    advice: str = ""


_WAIT = Fault(errors.BrokerUnavailable, retry=True)
_CLUSTER = Fault(errors.WrongServer, advice="the URL names one node of a Redis Cluster, which redis:// does not follow")

#: First word of an error reply -> what it means.
FAULTS: dict[str, Fault] = {
    "LOADING": _WAIT,
    "BUSY": _WAIT,
    "TRYAGAIN": _WAIT,
    "CLUSTERDOWN": _WAIT,
    "MASTERDOWN": _WAIT,
    "NOREPLICAS": _WAIT,
    "READONLY": Fault(errors.BrokerUnavailable, retry=True, reconnect=True, advice="the server is a replica now"),
    "UNBLOCKED": _WAIT,
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "OOM": Fault(errors.BrokerFull, advice="raise maxmemory, or let workers drain the queues; nothing was changed"),
    "MISCONF": Fault(errors.BrokerFull, advice="the server cannot write its files: look at its log and disk; nothing was changed"),
    "NOAUTH": Fault(errors.AccessDenied, advice="give the password in the URL, redis://:password@host"),
    "WRONGPASS": Fault(errors.AccessDenied, advice="the user name or password in the URL is wrong"),
    "NOPERM": Fault(errors.AccessDenied, advice="the server's ACL forbids this user a command, key or channel that redisq needs"),
    "WRONGTYPE": Fault(
        errors.QueueConflict,
        advice="a key of this queue is of another type: compare `redis-cli type` with the keys' page; nothing was changed",
    ),
    "hash value is not an integer": Fault(
        errors.QueueConflict, advice="a counter in the queue's stats holds something else; nothing was changed"
    ),
    "REDISQ_LAYOUT": Fault(
        errors.QueueConflict,
        advice="nothing was changed. If redisq wrote these keys and its config key was lost: set maxmemory-policy noeviction, and"
        " run `redisq repair <queue>`. If another program did: rename its keys, or use another queue name or namespace."
        " If a newer redisq did: upgrade this process",
    ),
    "REDISQ_CORRUPT": Fault(errors.QueueConflict, advice="something else wrote to that key; nothing was changed"),
    "REDISQ_ARGUMENT": Fault(errors.ProtocolError),
    "REDISQ_SUPERSEDED": Fault(errors.ProtocolError),
}

_OTHER = Fault(errors.BrokerError)
_CODE = re.compile(r"(?:ERR )?(REDISQ_[A-Z]+|[A-Z]+)\b")

# redis-py turns some replies into classes and takes their first word away.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.OutOfMemoryError, "OOM"),
    (redis_errors.TryAgainError, "TRYAGAIN"),
    (redis_errors.ClusterDownError, "CLUSTERDOWN"),
    (redis_errors.MasterDownError, "MASTERDOWN"),
    (redis_errors.MovedError, "MOVED"),
    (redis_errors.AskError, "ASK"),
    (redis_errors.ClusterCrossSlotError, "CROSSSLOT"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.AuthenticationError, "WRONGPASS"),
    (redis_errors.AuthorizationError, "NOPERM"),
)

# Beginnings of texts that came without their word, or lost it on the way.
_TEXTS = (
    ("Authentication required", "NOAUTH"),
    ("The user executing the script can't", "NOPERM"),
)


def classify(error: Exception) -> Fault:
    """Say what an error of redis-py, or of the socket below it, means."""
    text = str(error)
    for beginning, code in _TEXTS:
        if text.startswith(beginning):
            return FAULTS[code]
    for kind, code in _CLASSES:
        if isinstance(error, kind):
            return FAULTS[code]
    if isinstance(error, redis_errors.DataError):
        return _OTHER
    if not isinstance(error, redis_errors.ResponseError):
        # Connection refused, reset, closed, timed out, a reply cut short, no free connection in the pool.
        return _WAIT
    match = _CODE.match(text)
    if match and match[1] in FAULTS:
        return FAULTS[match[1]]
    # A script's error carries the reply that it met inside, e.g. "WRONGTYPE ... script: f_..." or "... -OOM command ...".
    for code, fault in FAULTS.items():
        if re.search(rf"\b{code}\b", text):
            return fault
    return _OTHER


def raise_if_told(error: BaseException) -> None:
    """Raise the timeout of a handler that came in the midst of a call to Redis.

    It is raised from outside, at any line of the handler's thread. It is a `TimeoutError`, so that redis-py takes it for the
    socket's.

    Raises:
        TaskTimeout: It is what the error comes from.
    """
    told: BaseException | None = error
    while told is not None:
        if isinstance(told, errors.TaskTimeout):
            raise told
        told = told.__context__


def is_noscript(error: object) -> bool:
    """Whether the server does not know the script (restarted, flushed, failed over)."""
    return isinstance(error, redis_errors.NoScriptError)
