"""Read annotations: those of a function or a class, and the plain types that one of them allows."""

from __future__ import annotations

import types
import typing
from collections import abc
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, get_args, get_origin
from uuid import UUID

__all__ = ["LISTS", "MAPS", "PLAIN", "WRAPPERS", "hints_of", "is_typed_dict", "kinds_of"]

#: Types that arrive as they are.
PLAIN = (str, bool, int, float, bytes, list, dict, tuple, datetime, date, time, timedelta, Decimal, UUID)
LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
MAPS = (dict, abc.Mapping, abc.MutableMapping)
#: Annotations that say nothing of the value but what is in their first argument.
WRAPPERS = tuple(
    getattr(typing, name) for name in ("Annotated", "Required", "NotRequired", "Final", "ReadOnly") if hasattr(typing, name)
)


def hints_of(annotated: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotations that can be resolved. One that cannot, e.g. of a name for type checkers only, hides no other.

    Args:
        annotated: A function or a class.
        names: The globals of its module.
    """
    try:
        return typing.get_type_hints(annotated)
    except Exception:  # noqa: BLE001 - any code may stand in an annotation
        found: dict[str, Any] = {}
    for part in reversed(getattr(annotated, "__mro__", (annotated,))):
        for name, hint in getattr(part, "__dict__", {}).get("__annotations__", getattr(part, "__annotations__", {})).items():
            with suppress(Exception):
                found |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), globalns=dict(names))
    return found


def is_typed_dict(kind: type) -> bool:
    """Return whether the class is a `TypedDict`, from `typing` or (pydantic needs it before Python 3.12) `typing_extensions`."""
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def kinds_of(choice: Any) -> tuple[type, ...] | None:
    """Return the types of the plain values that an annotation allows; None: it allows any."""
    origin = get_origin(choice)
    if origin is typing.Literal:
        return tuple(type(value) for value in get_args(choice))
    kind = origin or choice
    if not isinstance(kind, type) or kind in (object, Any):
        return None
    if kind is float:
        return (float, int, bool)
    return tuple(plain for plain in PLAIN if issubclass(plain, kind))
