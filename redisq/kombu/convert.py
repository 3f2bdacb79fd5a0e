"""What kombu publishes, as redisq enqueues it: when it is due, when it expires, where its priority puts it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu.utils.json import dumps, loads

from redisq.broker.commands import Enqueue
from redisq.codec.envelope import pack, unpack
from redisq.kombu.options import Options
from redisq.message import Delivery, new_id, with_head_start

__all__ = ["decode", "encode", "eta_of", "to_enqueue"]

#: What lies this far ahead, or further, cannot be said to Redis: a hundred years.
_FAR = 100 * 365.25 * 86400
#: A time without a zone is that of the reader's zone, which nobody knows here: taken as the earliest that it can be.
_EARLIEST_ZONE = timedelta(hours=14)


def encode(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message."""
    return pack(message, dumps)


def decode(body: bytes) -> dict[str, Any]:
    """Return the message.

    Raises:
        DecodeError: The bytes are none.
    """
    return unpack(body, loads)


def to_enqueue(message: Mapping[str, Any], body: bytes, options: Options) -> Enqueue:
    """Say where a message goes in its queue. Each queue gets a copy, with an id of its own."""
    properties = message.get("properties") or {}
    delay = _delay(message.get("headers"))
    expires = _number(properties.get("expiration"))
    head_start = options.head_start(_number(properties.get("priority")))
    return Enqueue(
        with_head_start(new_id(), head_start),
        body,
        head_start,
        f"+{round(delay * 1_000_000)}" if delay > 0 else "0",
        # In milliseconds, from the publication on.
        "" if expires is None or expires / 1000 > _FAR else f"+{max(round(expires * 1000), 1)}",
    )


def eta_of(headers: Any) -> datetime | None:
    """When Celery wants it to run, if it says so."""
    eta = headers.get("eta") if isinstance(headers, Mapping) else None
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta)
        except ValueError:
            return None
    if not isinstance(eta, datetime):
        return None
    try:
        return eta if eta.tzinfo else eta.replace(tzinfo=UTC) - _EARLIEST_ZONE
    except OverflowError:
        return None  # the first hours of all time


def _delay(headers: Any) -> float:
    """Seconds until it is due, by this machine's clock: the one that its eta was made by."""
    eta = eta_of(headers)
    return 0.0 if eta is None else max(min((eta - datetime.now(UTC)).total_seconds(), _FAR), 0.0)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < float("inf") else None


def mark(message: dict[str, Any], delivery: Delivery, tag: str) -> None:
    """Write into a message what this delivery of it is."""
    properties = message["properties"]
    properties["delivery_tag"] = tag
    info = properties.get("delivery_info")
    if not isinstance(info, dict):
        info = properties["delivery_info"] = {}
    again = delivery.meta.crashes + delivery.meta.parks + delivery.meta.requeues
    if again:
        info["redelivered"] = True
        info["delivery_count"] = again
    else:
        info["redelivered"] = False
    headers: Any = message.get("headers")
    eta = eta_of(headers)
    # Due by the server's clock, and not by this machine's: without this Celery would hold it in memory till then.
    if eta is not None and headers["eta"] and eta > datetime.now(UTC) and _aware(headers["eta"]):
        headers["eta"] = None


def _aware(eta: Any) -> bool:
    parsed = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    return parsed.tzinfo is not None
