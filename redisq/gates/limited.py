"""Know a platform's "too many requests" by the shape of the error, without importing the platform's library.

What proves it, and nothing less does:

- a status of 429 on the error or its `response` (httpx, aiohttp, requests, slack_sdk, discord.py, openai, anthropic);
- a status of 503 or 529 *and* a wait that the answer asks for: the platform says when it is back. Without one it is broken,
  which is a failure like others;
- the class of a library that has one for just this: see `_CLASSES`. `retry_after` on any other class proves nothing.

Not a limit: 429 with `insufficient_quota` (OpenAI: the account has no money). It heals by no waiting and has to be seen.

An error raised `from` another is looked through, as many clients wrap those of their HTTP library; `Retry` and `Reject`
are not: the handler has decided. What merely was being handled when another error came (`__context__`) is another matter.
A group (`asyncio.TaskGroup`) is a limit if all in it are.

Nothing here reads from the network: of a body only what the client has read already is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redisq.errors import RateLimited, RedisqError
from redisq.gates.retry_after import bounded, seconds_asked_for

__all__ = ["RateLimit", "Scope", "limited_by"]

#: What the platform limited, as far as its answer tells.
Scope = Literal["chat", "bot", "method", "model"]

#: Package and class of errors that mean a limit and nothing else -> what they limit.
_CLASSES: dict[tuple[str, str], Scope | None] = {
    ("aiogram", "TelegramRetryAfter"): None,
    ("telegram", "RetryAfter"): None,
    ("discord", "RateLimited"): "method",
}
#: What a platform's 429 is about when its answer does not say.
_SCOPES: dict[str, Scope] = {"slack_sdk": "method", "discord": "method", "openai": "model", "anthropic": "model"}

_DEPTH = 5
_BODY_BYTES = 64 * 1024
_TEXT = 500


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A platform's answer that it has had enough.

    Attributes:
        seconds: It asks to wait so long, within `retry_after.SHORTEST` and `LONGEST`; None: it does not say, and the
            caller waits longer from time to time.
        scope: `chat`, `bot`, `method` or `model`; None: it does not say.
        key: The gate that the handler named (`RateLimited(key=...)`).
        text: The error, for logs.
    """

    seconds: float | None
    scope: Scope | None
    key: str | None
    text: str


def limited_by(error: BaseException) -> RateLimit | None:
    """Return what limited a handler that ended with this error; None: it failed for another reason."""
    return _limited(error, _DEPTH)


def _limited(error: BaseException, depth: int) -> RateLimit | None:
    if isinstance(error, RateLimited):
        return RateLimit(bounded(error.retry_after), None, error.key, _text(error))
    if isinstance(error, RedisqError) or depth == 0:
        return None
    if isinstance(error, BaseExceptionGroup):
        found = [_limited(each, depth - 1) for each in error.exceptions]
        limits = [each for each in found if each]
        return max(limits, key=lambda limit: limit.seconds or 0) if len(limits) == len(found) else None
    if (limit := _of_class(error)) or (limit := _of_status(error)):
        return limit
    return _limited(error.__cause__, depth - 1) if error.__cause__ else None


def _of_class(error: BaseException) -> RateLimit | None:
    for kind in type(error).__mro__:
        known = (kind.__module__.partition(".")[0], kind.__name__)
        if known in _CLASSES:
            # python-telegram-bot keeps a timedelta there, and warns whoever reads the public one.
            asked = _get(error, "_retry_after")
            asked = _get(error, "retry_after") if asked is None else asked
            scope: Scope | None = _CLASSES[known]
            if scope is None and _get(_get(error, "method"), "chat_id") is not None:
                scope = "chat"
            return RateLimit(bounded(asked), scope, None, _text(error))
    return None


def _of_status(error: BaseException) -> RateLimit | None:
    response = _get(error, "response")
    statuses = [_get(of, name) for of in (error, response) for name in ("status_code", "status")]
    status = next((value for value in statuses if type(value) is int), 0)
    if status not in (429, 503, 529):
        return None
    headers = _headers(_get(response, "headers")) or _headers(_get(error, "headers"))
    body = _body(response)
    if status == 429 and _out_of_quota(error, body):
        return None
    seconds = seconds_asked_for(headers, body)
    if status != 429 and seconds is None:
        return None
    return RateLimit(seconds, _scope(error, headers, body), None, _text(error))


def _scope(error: BaseException, headers: Mapping[str, str], body: Mapping[str, Any]) -> Scope | None:
    if headers.get("x-ratelimit-global") or headers.get("x-ratelimit-scope") == "global" or body.get("global") is True:
        return "bot"
    for kind in type(error).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in _SCOPES:
            return _SCOPES[package]
    # Discord and Slack by a plain HTTP client; OpenAI and who copies it, likewise.
    if "x-ratelimit-bucket" in headers or "x-slack-req-id" in headers:
        return "method"
    return "model" if any(name.startswith(("x-ratelimit-remaining-", "anthropic-ratelimit-")) for name in headers) else None


def _out_of_quota(error: BaseException, body: Mapping[str, Any]) -> bool:
    inner = body.get("error")
    places = (
        _get(error, "code"),
        _get(error, "type"),
        *(inner.get(name) for name in ("code", "type") if isinstance(inner, Mapping)),
    )
    return "insufficient_quota" in places


def _body(response: Any) -> Mapping[str, Any]:
    """The answer's JSON, if it is an object and was read already; slack_sdk has it as `data`, others keep its bytes."""
    data = _get(response, "data")
    if isinstance(data, Mapping):
        return data
    # Not `.text` or `.json()`: of a streamed answer these would read the rest, in a blocking way.
    content = _get(response, "_content")
    if not isinstance(content, bytes) or len(content) > _BODY_BYTES:
        return {}
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, Mapping) else {}


def _headers(headers: Any) -> dict[str, str]:
    """Headers with names in lower case: some clients give a plain dict, as the server wrote them."""
    try:
        pairs = list(headers.items())
    except Exception:  # noqa: BLE001 - any object may be there
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        first = value[0] if isinstance(value, list | tuple) and value else value
        found.setdefault(str(name).lower(), str(first).strip())
    return found


def _get(of: Any, name: str) -> Any:
    """An attribute; None when there is none, or when reading it fails, as properties of foreign classes may."""
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001
        return None


def _text(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - a foreign class's own code
        said = ""
    return f"{type(error).__name__}: {said}"[:_TEXT]
