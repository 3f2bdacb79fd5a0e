"""Look at errors of foreign libraries without importing these. Nothing here reads from the network.

What is absent, or fails when it is read, is None or empty. What is there and breaks when it is looked at more closely may raise:
the callers take such an error for no platform's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["body_of", "classes_of", "get", "headers_of", "response_of", "status_of"]

_BODY_BYTES = 64 * 1024


def get(of: Any, name: str) -> Any:
    """Return an attribute; None when there is none, or when reading it fails, as properties of foreign classes may."""
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001
        return None


def classes_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """Give the error's class and the classes that it is made from: the package and the name of each."""
    return ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__)


def response_of(error: BaseException) -> Any:
    """Return the answer that an error is about; googleapiclient calls it `resp`."""
    response = get(error, "response")
    return get(error, "resp") if response is None else response


def status_of(error: BaseException) -> int:
    """Return the HTTP status that an error tells; 0: none."""
    statuses = [get(of, name) for of in (error, response_of(error)) for name in ("status_code", "status")]
    return next((value for value in statuses if type(value) is int), 0)


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the answer's headers, with names in lower case: some clients give a plain dict, as the server wrote them."""
    response = response_of(error)
    for headers in (get(response, "headers"), get(error, "headers"), response if isinstance(response, Mapping) else None):
        if found := _named(headers):
            return found
    return {}


def _named(headers: Any) -> dict[str, str]:
    try:
        pairs = headers.items()
    except Exception:  # noqa: BLE001 - any object may be there
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        first = value[0] if isinstance(value, list | tuple) and value else value
        found.setdefault(str(name).lower(), str(first).strip())
    return found


def body_of(error: BaseException) -> Mapping[str, Any]:
    """Return the answer's JSON, if it is an object and was read already.

    slack_sdk has it as `data`; others keep its bytes, googleapiclient with the error.
    """
    response = response_of(error)
    data = get(response, "data")
    if isinstance(data, Mapping):
        return data
    # Not `.text` or `.json()`: of a streamed answer these would read the rest, in a blocking way.
    content = get(response, "_content")
    if content is None:
        content = get(error, "content")
    if not isinstance(content, bytes) or len(content) > _BODY_BYTES:
        return {}
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, Mapping) else {}
