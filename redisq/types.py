"""Names for the values that travel through redisq."""

from __future__ import annotations

import re
from datetime import timedelta

from redisq.errors import ConfigError

__all__ = ["MAX_MICROSECONDS", "Seconds", "check_name", "microseconds"]

#: A duration in a public interface: seconds, or a `timedelta`. Never milliseconds.
Seconds = float | timedelta

#: The largest integer that a sorted set's score holds exactly.
MAX_MICROSECONDS = 2**53 - 1

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
#: Names that other programs chose (kombu's) have what is not allowed percent-encoded.
_ENCODED_NAME = re.compile(r"(?:[A-Za-z0-9_.@-]|%[0-9A-F]{2}){1,128}")
_ENCODED_KINDS = frozenset(("queue", "exchange", "namespace"))


def check_name(kind: str, name: str) -> str:
    """Return `name` if it may name a queue, task, id or lock.

    A queue's, exchange's or namespace's may have other characters percent-encoded, as `%2F`: kombu allows any. A colon
    is not allowed, so that no queue's keys can be taken for another's.

    Raises:
        ConfigError: The name is empty, longer than 128, or has other characters than letters, digits and `_ . @ -`.
    """
    pattern = _ENCODED_NAME if kind in _ENCODED_KINDS else _NAME
    if not pattern.fullmatch(name):
        raise ConfigError(f"{kind} {name!r}: use 1 to 128 of the characters A-Z a-z 0-9 _ . @ -")
    return name


def microseconds(duration: Seconds, what: str) -> int:
    """Return a duration as whole microseconds.

    Raises:
        ConfigError: It is negative, not a number, or does not fit (285 years).
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds * 1_000_000 <= MAX_MICROSECONDS:
        raise ConfigError(f"{what}={duration!r}: want seconds >= 0, or a timedelta")
    return round(seconds * 1_000_000)
