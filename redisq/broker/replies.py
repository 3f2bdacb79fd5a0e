"""Read the parts of replies. Another program may have written anything into the keys of a queue: no reply makes a reader raise."""

from __future__ import annotations

from typing import Any

__all__ = ["KEPT", "number", "text", "texts"]


#: How bytes that are not UTF-8 become text, and in a command the same bytes again.
KEPT = "surrogateescape"


def text(raw: Any) -> str:
    """Return what a reply says, as text. Bytes that are not UTF-8 are kept: in a command they are the same bytes again."""
    return raw.decode("utf-8", KEPT) if isinstance(raw, bytes) else str(raw)


def texts(reply: Any) -> list[str]:
    """Return each part of a reply as text."""
    return [text(value) for value in reply]


def number(digits: str) -> int | None:
    """Return a whole number of at most 19 digits, or None if that is none: `int` raises on thousands of them."""
    return int(digits) if digits.isdecimal() and len(digits) < 20 else None
