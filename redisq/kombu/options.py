"""`broker_transport_options`: ours, and the stock Redis transport's: mapped, or accepted with one note."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from redisq.errors import ConfigError
from redisq.types import microseconds

__all__ = ["Options"]

#: Options of the stock transport that have nothing to do here, and why.
_NOT_NEEDED = {
    "ack_emulation": "every delivery is under a lease until it is acknowledged",
    "fanout_patterns": "fanout ignores routing keys",
    "fanout_prefix": "each database has its own exchanges",
    "health_check_interval": "every answer has a deadline",
    "polling_interval": "nothing is polled",
    "priority_steps": "all of 0 to 255 are told apart",
    "reauth_check_interval": "connections log in anew when they are made",
    "retry_on_timeout": "every call is safe to repeat, and is",
    "sep": "a queue is one sorted set",
    "unacked_index_key": "leases are kept with their queue",
    "unacked_key": "leases are kept with their queue",
    "unacked_mutex_expire": "there is no sweep to take turns at",
    "unacked_mutex_key": "there is no sweep to take turns at",
    "unacked_restore_interval": "what expired is taken back by the next claim",
    "unacked_restore_limit": "what expired is taken back by the next claim",
    "unacked_restore_throttle": "what expired is taken back by the next claim",
}
#: What makes no sense without what redisq does not have yet.
_REFUSED = ("master_name", "min_other_sentinels", "sentinel_fanout_compat", "sentinel_kwargs")
#: Read by kombu, Celery or `address.py`, not here.
_ELSEWHERE = frozenset(
    (
        "body_encoding", "callback", "client_name", "confirm_publish", "connect_retries_timeout", "connection_errors",
        "credential_provider", "deadletter_queue", "errback", "global_keyprefix", "interval_max", "interval_start",
        "interval_step", "max_connections", "max_retries", "retry_errors", "socket_connect_timeout", "socket_keepalive",
        "socket_keepalive_options", "socket_timeout",
    )
)  # fmt: skip
_OURS = (
    "lease", "delivery_limit", "higher_priority_first", "priority_step", "batch", "dead_letter_expired", "fanout_max_length",
    "fanout_max_age", "queue_order_strategy", "priority_across_queues", "visibility_timeout",
)  # fmt: skip

#: Packages between a program's line and an option of its connection.
_LIBRARIES = frozenset(
    (
        "amqp", "billiard", "celery", "click", "concurrent", "contextlib", "dataclasses", "django_celery_beat", "eventlet",
        "functools", "gevent", "importlib", "kombu", "redisq", "runpy", "threading", "vine",
    )
)  # fmt: skip

#: Seconds. Renewed every third of it.
_LEASE = 30.0
#: A message may come back so often, and be requeued for so many seconds, where the program says nothing. `Reject(requeue=True)`
#: comes back within milliseconds: a count alone would end what waits for a service that is down.
_DELIVERIES, _REQUEUES = 20, 86400.0
#: As for redisq's own workers: docs/decisions/0002.
_SHORTEST = 3.0
#: 180 days, in seconds: what a step of priority is worth. Strict, in practice.
_STRICT = 180 * 86400.0
#: The most that a priority may move a message, so that its score stays exact.
_MOST = 2**52


@dataclass(frozen=True, slots=True)
class Options:
    """The transport's options. Times are in seconds.

    Attributes:
        lease: A consumer that dies gives its messages back after this; renewed while it lives.
        delivery_limit: A message whose consumer died so often, or that was requeued so often, becomes a dead letter. None: 20,
            and requeues make it one only when they have gone on for a day.
        higher_priority_first: 255 before 0. False, as in the stock transport: 0 before 255.
        priority_step: What one step of priority is worth. The default is strict, small ones let low priorities pass in time.
        batch: Messages that one trip to Redis brings at most, where the prefetch count allows it.
        dead_letter_expired: Keep what expired as dead letters.
        fanout_max_length: Messages that the stream of a fanout exchange keeps, about.
        fanout_max_age: How long it keeps them.
        queue_order_strategy: `round_robin`, `priority` or `sorted`.
        priority_across_queues: A consumer of several queues takes by priority first, and then by the order of queues.
    """

    lease: float = _LEASE
    delivery_limit: int | None = None
    higher_priority_first: bool = False
    priority_step: float = _STRICT
    batch: int = 100
    dead_letter_expired: bool = False
    fanout_max_length: int = 10_000
    fanout_max_age: float = 600.0
    queue_order_strategy: str = "round_robin"
    priority_across_queues: bool = False
    _step: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.lease >= _SHORTEST:
            raise ConfigError(f"lease={self.lease!r}: want {_SHORTEST:g} s or more")
        if (
            (self.delivery_limit is not None and self.delivery_limit < 1)
            or not 1 <= self.batch <= 1000
            or self.fanout_max_length < 1
            or not self.fanout_max_age >= 1
        ):
            raise ConfigError("delivery_limit, batch (up to 1000), fanout_max_length and fanout_max_age: want 1 or more")
        if self.queue_order_strategy not in ("round_robin", "priority", "sorted"):
            raise ConfigError(f"queue_order_strategy={self.queue_order_strategy!r}: want round_robin, priority or sorted")
        step = microseconds(self.priority_step, "priority_step")
        if step * 255 > _MOST:
            raise ConfigError(f"priority_step={self.priority_step!r}: want {_MOST // 255 // 1_000_000} s at most")
        object.__setattr__(self, "_step", step)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Read them, and say once what does nothing here.

        Raises:
            ConfigError: One is out of range, or needs what redisq does not have.
        """
        ours = {name: given[name] for name in _OURS if given.get(name) is not None}
        visibility = ours.pop("visibility_timeout", None)
        if visibility is not None and "lease" not in ours:
            ours["lease"] = max(min(float(visibility), _LEASE), _SHORTEST)
        for name, value in given.items():
            if name in _REFUSED:
                raise ConfigError(f"transport option {name}: redisq:// does not know Sentinel; give the server's own address")
            if name in _NOT_NEEDED:
                _note(f"transport option {name} has no effect with redisq://: {_NOT_NEEDED[name]}")
            elif name == "visibility_timeout" and value is not None and float(value) > _LEASE:
                _note(
                    "transport option visibility_timeout has no effect with redisq:// above"
                    f" {_LEASE:g} s: a lease (option lease) is renewed while its consumer lives"
                )
            elif name not in _ELSEWHERE and name not in _OURS:
                _note(f"transport option {name} is unknown to redisq://")
        return cls(**ours)

    @property
    def most_deliveries(self) -> int:
        """How often a message may come back."""
        return _DELIVERIES if self.delivery_limit is None else self.delivery_limit

    @property
    def requeue_age_us(self) -> int:
        """Microseconds since its first requeue before a message may be a dead letter for its requeues."""
        return round(_REQUEUES * 1_000_000) if self.delivery_limit is None else 0

    @property
    def lease_us(self) -> int:
        """The lease in microseconds."""
        return round(self.lease * 1_000_000)

    @property
    def step_us(self) -> int:
        """What a step of priority is worth, in microseconds."""
        return self._step

    def head_start(self, priority: float | None) -> int:
        """What a priority is worth, in microseconds; less than 0 when it stands back."""
        level = max(0, min(255, int(priority or 0)))
        return level * self._step if self.higher_priority_first else -level * self._step


def _note(text: str) -> None:
    """Warn once in a program, at the line of the program that made the connection."""
    # Not `warnings.warn`: it counts per line, and a connection is made in many, those of kombu and Celery among them. The
    # registry is where the interpreter notes what was shown.
    registry = globals().setdefault("__warningregistry__", {})
    if any(isinstance(shown, tuple) and shown[0] == text for shown in list(registry)):
        return
    if _is_of_a_pool():
        return
    frame = _user_frame(sys._getframe(1))  # public in all but its name; `inspect` gives the same
    warnings.warn_explicit(text, UserWarning, frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__"), registry)


def _is_of_a_pool() -> bool:
    """Say whether this is a process of Celery's prefork pool. The worker connects with the same options, and warns of them."""
    billiard = sys.modules.get("billiard")
    return billiard is not None and billiard.current_process().name != "MainProcess"


def _user_frame(frame: FrameType) -> FrameType:
    """Find the innermost frame that is of no library between here and the program; the outermost, if all are."""
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _LIBRARIES:
            return frame
        frame = frame.f_back
    return frame
