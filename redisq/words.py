"""Write numbers with their nouns, as sentences need them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 message`, `2 messages`.

    Args:
        count: The number.
        noun: What is counted, one of it.
        plural: Several of it; empty: the noun with an `s`.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {plural or f'{noun}s'}"
