"""Know a platform's "too many requests" by the shape of the error, without importing the platform's library.

What proves it, and nothing less does:

- a status of 429 on the error or its `response` (httpx, aiohttp, requests, slack_sdk, discord.py, openai, anthropic);
- a status of 503 or 529 *and* a wait that the answer asks for: the platform says when it is back. Without one it is broken,
  which is a failure like others;
- the class of a library that has one for just this: see `_CLASSES`. `retry_after` on any other class proves nothing;
- a code of AWS that means throttling, whatever the status (botocore), Matrix's `M_LIMIT_EXCEEDED` (an answer of nio, on the
  error or as its argument), and Google's 403 with the reason `rateLimitExceeded`.

Not a limit: 429 with `insufficient_quota` (OpenAI: the account has no money). It heals by no waiting and has to be seen.

An error raised `from` another is looked through, as many clients wrap those of their HTTP library; `Retry` and `Reject`
are not: the handler has decided. What merely was being handled when another error came (`__context__`) is another matter.
A group (`asyncio.TaskGroup`) is a limit if all in it are. An error that breaks when it is looked at is none, whatever its status.

Nothing here reads from the network: of a body only what the client has read already is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redisq.errors import RateLimited, RedisqError
from redisq.gates.retry_after import bounded, retry_info, seconds_asked_for
from redisq.gates.shapes import body_of, classes_of, get, headers_of, status_of

__all__ = ["RateLimit", "Scope", "limited_by"]

#: What the platform limited, as far as its answer tells.
Scope = Literal["chat", "bot", "method", "model"]

#: Package and class of errors that mean a limit and nothing else -> what they limit.
_CLASSES: dict[tuple[str, str], Scope | None] = {
    ("aiogram", "TelegramRetryAfter"): None,
    ("telegram", "RetryAfter"): None,
    ("discord", "RateLimited"): "method",
    ("telethon", "FloodWaitError"): "method",
    ("telethon", "FloodPremiumWaitError"): "method",
    ("telethon", "FloodTestPhoneWaitError"): "method",
    ("telethon", "SlowModeWaitError"): "chat",
    ("pyrogram", "FloodWait"): "method",
    ("pyrogram", "FloodPremiumWait"): "method",
    ("pyrogram", "FloodTestPhoneWait"): "method",
    ("pyrogram", "SlowmodeWait"): "chat",
    ("google", "TooManyRequests"): "method",
}
#: Where those errors keep the seconds. python-telegram-bot keeps a timedelta, and warns whoever reads the public one.
_WAITS = ("_retry_after", "retry_after", "seconds", "value")
#: What AWS calls throttling. Not `LimitExceededException`: with most services a number of things is full, for good.
_THROTTLED = frozenset(
    (
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
        "TooManyRequestsException", "ProvisionedThroughputExceededException", "RequestLimitExceeded",
        "BandwidthLimitExceeded", "EC2ThrottledException", "SlowDown",
    )
)  # fmt: skip
#: What a platform's 429 is about when its answer does not say.
_SCOPES: dict[str, Scope] = {
    "slack_sdk": "method", "discord": "method", "openai": "model", "anthropic": "model", "google": "method",
    "googleapiclient": "method",
}  # fmt: skip

_DEPTH = 5


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A platform's answer that it has had enough.

    Attributes:
        seconds: It asks to wait so long, within `retry_after.SHORTEST` and `LONGEST`; None: it does not say, and the
            caller waits longer from time to time.
        scope: `chat`, `bot`, `method` or `model`; None: it does not say.
        key: The gate that the handler named (`RateLimited(key=...)`).
        error: What proves it: the error itself, the one that it was raised from, or one of a group.
    """

    seconds: float | None
    scope: Scope | None
    key: str | None
    error: BaseException


def limited_by(error: BaseException) -> RateLimit | None:
    """Return what limited a handler that ended with this error; None: it failed for another reason."""
    try:
        return _limited(error, _DEPTH)
    except Exception:  # noqa: BLE001 - a foreign class's own code
        return None


def _limited(error: BaseException, depth: int) -> RateLimit | None:
    if isinstance(error, RateLimited):
        return RateLimit(bounded(error.retry_after), None, error.key, error)
    if isinstance(error, RedisqError) or depth == 0:
        return None
    if isinstance(error, BaseExceptionGroup):
        found = [_limited(each, depth - 1) for each in error.exceptions]
        limits = [each for each in found if each]
        return max(limits, key=lambda limit: limit.seconds or 0) if len(limits) == len(found) else None
    for found_by in (_of_class, _of_status, _of_aws, _of_matrix):
        if limit := found_by(error):
            return limit
    return _limited(error.__cause__, depth - 1) if error.__cause__ else None


def _of_class(error: BaseException) -> RateLimit | None:
    for known in classes_of(error):
        if known in _CLASSES:
            asked = next((wait for name in _WAITS if (wait := get(error, name)) is not None), None)
            seconds = bounded(asked) or retry_info(get(error, "details"))
            scope: Scope | None = _CLASSES[known]
            if scope is None and get(get(error, "method"), "chat_id") is not None:
                scope = "chat"
            return RateLimit(seconds or seconds_asked_for(headers_of(error), body_of(error)), scope, None, error)
    return None


def _of_status(error: BaseException) -> RateLimit | None:
    status = status_of(error)
    if status not in (403, 429, 503, 529):
        return None
    headers, body = headers_of(error), body_of(error)
    if (status == 429 and _out_of_quota(error, body)) or (status == 403 and not _googles_limit(body)):
        return None
    seconds = seconds_asked_for(headers, body)
    if status in (503, 529) and seconds is None:
        return None
    return RateLimit(seconds, _scope(error, headers, body), None, error)


def _of_aws(error: BaseException) -> RateLimit | None:
    answer = get(error, "response")
    if ("botocore", "ClientError") not in classes_of(error) or not isinstance(answer, Mapping):
        return None
    about, said = answer.get("ResponseMetadata"), answer.get("Error")
    status = about.get("HTTPStatusCode") if isinstance(about, Mapping) else None
    code = said.get("Code") if isinstance(said, Mapping) else None
    if status != 429 and not (isinstance(code, str) and code in _THROTTLED):
        return None
    headers = about.get("HTTPHeaders") if isinstance(about, Mapping) else None
    named = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
    return RateLimit(seconds_asked_for(named, {}), "method", None, error)


def _of_matrix(error: BaseException) -> RateLimit | None:
    """Find an answer of nio, which raises nothing: the handler raises the answer, or puts it into what it raises."""
    for answer in (error, get(error, "response"), *error.args[:1]):
        status = get(get(answer, "transport_response"), "status")
        if status == 429 or "M_LIMIT_EXCEEDED" in (get(answer, "status_code"), get(answer, "errcode")):
            asked = get(answer, "retry_after_ms")
            return RateLimit(seconds_asked_for({}, {"retry_after_ms": asked}), "method", None, error)
    return None


def _googles_limit(body: Mapping[str, Any]) -> bool:
    """Whether a 403 is what older Google APIs say instead of 429."""
    error = body.get("error")
    errors = error.get("errors") if isinstance(error, Mapping) else None
    reasons = [one.get("reason") for one in errors if isinstance(one, Mapping)] if isinstance(errors, list) else []
    return any(reason in ("rateLimitExceeded", "userRateLimitExceeded") for reason in reasons)


def _scope(error: BaseException, headers: Mapping[str, str], body: Mapping[str, Any]) -> Scope | None:
    if headers.get("x-ratelimit-global") or headers.get("x-ratelimit-scope") == "global" or body.get("global") is True:
        return "bot"
    for package, _ in classes_of(error):
        if package in _SCOPES:
            return _SCOPES[package]
    # Discord and Slack by a plain HTTP client; OpenAI and who copies it, likewise.
    if "x-ratelimit-bucket" in headers or "x-slack-req-id" in headers:
        return "method"
    return "model" if any(name.startswith(("x-ratelimit-remaining-", "anthropic-ratelimit-")) for name in headers) else None


def _out_of_quota(error: BaseException, body: Mapping[str, Any]) -> bool:
    inner = body.get("error")
    places = (
        get(error, "code"),
        get(error, "type"),
        *(inner.get(name) for name in ("code", "type") if isinstance(inner, Mapping)),
    )
    return "insufficient_quota" in places
