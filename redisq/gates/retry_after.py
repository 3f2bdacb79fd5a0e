"""How long a platform asks to wait: the seconds in the headers of its answer, or in its body.

Looked for in this order, the first usable one counts:

1. `retry-after-ms` (OpenAI and clouds that copy it);
2. `retry-after`: seconds, whole or not, or an HTTP date (RFC 9110, section 10.2.3);
3. `x-ratelimit-reset-after` (Discord), in seconds;
4. `x-ratelimit-reset-*` (OpenAI: `1s`, `6m0s`, `20ms`) and `anthropic-ratelimit-*-reset` (RFC 3339): of those with nothing
   remaining the longest; if all have some left, the longest of all, since one was too little and nothing says which;
5. `retry_after` in the body, or in its `parameters` (Telegram); `retry_after_ms` (Matrix); a `RetryInfo` among the details of
   its error (Google).

A time is measured from the answer's own `Date`, so a wrong clock here does no harm; without one, from the clock here.
Zero, less, and what cannot be read count as absent: some clouds send -1 or 0 for "unknown", and to come back at once, for
ever, is the one thing that is surely wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from redisq.gates.shapes import get

__all__ = ["LONGEST", "SHORTEST", "bounded", "retry_info", "seconds_asked_for"]

#: Seconds. A shorter wait is made so long: Redis and workers are not asked more often than this.
SHORTEST = 0.1
#: Seconds. A longer wait is made so short: after an hour one message finds out whether it is still so.
LONGEST = 3600.0

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_RESET = re.compile(r"x-ratelimit-reset-(?!after$)(.+)|anthropic-ratelimit-(.+)-reset")


def bounded(seconds: Any) -> float | None:
    """Return seconds, or a `timedelta`, within `SHORTEST` and `LONGEST`; None: it asks for nothing."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if (isinstance(seconds, float) and math.isnan(seconds)) or seconds <= 0:
        return None
    return float(min(max(seconds, SHORTEST), LONGEST))


def seconds_asked_for(headers: Mapping[str, str], body: Mapping[str, Any], now: datetime | None = None) -> float | None:
    """Return the bounded seconds; None: the answer does not say.

    Args:
        headers: Their names in lower case.
        body: Of the answer, as JSON; empty if it is none.
        now: The time here; None: by the clock.
    """
    sent = _date(headers.get("date", "")) or now or datetime.now(UTC)
    millis = _number(headers.get("retry-after-ms", ""))
    if millis is not None and millis > 0:
        return bounded(millis / 1000)
    for name in ("retry-after", "x-ratelimit-reset-after"):
        seconds = _seconds(headers.get(name, ""), sent)
        if seconds is not None:
            return seconds
    resets = _resets(headers, sent)
    if resets:
        return resets
    parameters, error, asked = body.get("parameters"), body.get("error"), body.get("retry_after_ms")
    return (
        bounded(body.get("retry_after"))
        or bounded(parameters.get("retry_after") if isinstance(parameters, Mapping) else None)
        or bounded(min(asked, LONGEST * 1000) / 1000 if isinstance(asked, int | float) else None)
        or retry_info(error.get("details") if isinstance(error, Mapping) else None)
    )


def retry_info(details: Any) -> float | None:
    """Return the bounded seconds of a `google.rpc.RetryInfo` among the details of an error; None: there is none.

    Args:
        details: JSON objects, or messages of protobuf.
    """
    for detail in details if isinstance(details, list | tuple) else ():
        if isinstance(detail, Mapping):
            delay = detail.get("retryDelay")
            seconds = bounded(_duration(delay)) if isinstance(delay, str) else None
        else:
            delay = get(detail, "retry_delay")
            whole, nanos = get(delay, "seconds"), get(delay, "nanos") or 0
            seconds = bounded(min(whole, LONGEST) + min(nanos, 1e9) / 1e9) if type(whole) is int and type(nanos) is int else None
        if seconds is not None:
            return seconds
    return None


def _resets(headers: Mapping[str, str], sent: datetime) -> float | None:
    exhausted: list[float] = []
    others: list[float] = []
    for name, value in headers.items():
        if (match := _RESET.fullmatch(name)) and (seconds := _seconds(value, sent)) is not None:
            remaining = f"x-ratelimit-remaining-{match[1]}" if match[1] else f"anthropic-ratelimit-{match[2]}-remaining"
            (exhausted if headers.get(remaining) == "0" else others).append(seconds)
    return max(exhausted or others, default=None)


def _seconds(text: str, sent: datetime) -> float | None:
    number = _number(text)
    if number is None:
        number = _duration(text)
    if number is None and (at := _date(text)):
        number = (at - sent).total_seconds()
    return bounded(number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _duration(text: str) -> float | None:
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        return None
    return sum(float(number) * unit for number, unit in zip(match.groups(), _UNITS, strict=True) if number)


def _date(text: str) -> datetime | None:
    """An HTTP date or an RFC 3339 time; one without a zone is in UTC."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = parse(text.strip())
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None
