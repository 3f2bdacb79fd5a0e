"""Compare a value that is sent with what would arrive: equal, and of the same types all the way down.

`==` is not enough: a member of a `StrEnum` equals its text, an `OrderedDict` a dict, `True` one.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from redisq.codec.models import parts_of

__all__ = ["first_change"]


def first_change(before: Any, after: Any) -> tuple[Any, Any] | None:
    """Return the first value in here that would arrive as another, and that other; None: all arrives as it was."""
    kind = type(before)
    # The function in a defaultdict does not travel, and dicts are equal without it.
    if kind is not type(after) or kind is defaultdict:
        return before, after
    parts, others = _parts(before), _parts(after)
    if parts is None or others is None:
        return None if _is_same(before, after) else (before, after)
    if len(parts) != len(others):
        return before, after
    for one, other in zip(parts, others, strict=True):
        if change := first_change(one, other):
            return change
    return None


def _parts(value: Any) -> list[Any] | None:
    """Return what is in a value; None: nothing that can be compared one by one."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values(), *_attributes(value)]
    if isinstance(value, list | tuple):
        return [*value, *_attributes(value)]
    return parts_of(value)


def _attributes(value: Any) -> list[Any]:
    """Return what a subclass of a plain type holds beside its plain value."""
    return sorted(vars(value).items()) if hasattr(value, "__dict__") else []


def _is_same(before: Any, after: Any) -> bool:
    if isinstance(before, datetime):
        # Two zones with the same offset may compare as unequal in the hour when clocks are put back.
        return str(before.isoformat()) == str(after.isoformat())
    if isinstance(before, Decimal):
        return str(before) == str(after)
    same: bool = bool(before == after or (before != before and after != after))
    if isinstance(before, str | int | float | bytes) and hasattr(before, "__dict__"):
        same = same and first_change(_attributes(before), _attributes(after)) is None
    return same
