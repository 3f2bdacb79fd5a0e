"""Say where in an argument a value stands that does not fit its annotation, and why; never the value itself.

A place is written as Python code would reach it: `user.addresses[2].zip`. A key of a dict is a value of the sender's, so it
is written `[...]`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from redisq.codec.tries import TooManyTries

__all__ = ["KEY", "FitsNone", "Misfit", "inside", "misfit_of", "of_msgspec", "of_pydantic"]

#: Stands for any key of a dict.
KEY = "[...]"

#: Of a long place so many steps are shown, of its beginning and of its end.
_FIRST, _LAST = 6, 3


class Misfit(TypeError):
    """A value does not fit its annotation.

    Args:
        words: Why, without the value.
        error: What was raised when it was built; None: nothing but this.
        steps: How to come to it from the value that was being built, the last step first.
    """

    def __init__(self, words: str, error: Exception | None = None, steps: Collection[str] = ()) -> None:
        super().__init__(words)
        self.words = words
        self.error = error
        self.steps = [*steps]

    def at(self, name: str) -> str:
        """Return the place of the value in the argument of that name, and why it does not fit."""
        steps = self.steps[::-1]
        if len(steps) > _FIRST + _LAST:
            steps = [*steps[:_FIRST], "…", *steps[-_LAST:]]
        return f"{name}{''.join(steps)} does not fit its annotation: {self.words}"


class FitsNone(Misfit):
    """A value fits none of the classes of a union.

    Attributes:
        in_class: The union is the annotation of a class's field.
    """

    in_class = False


def misfit_of(error: Exception) -> Misfit:
    """Return what is known of an error that a builder raised. Of one of the app's code only the class is shown."""
    return error if isinstance(error, Misfit) else Misfit(type(error).__name__, error)


def inside(error: Exception, step: str) -> Exception:
    """Return the error of a part as that of the whole.

    Args:
        error: What was raised when the part was built.
        step: How to come to the part: `.name`, `[2]`, `KEY`.
    """
    if isinstance(error, TooManyTries):
        return error
    misfit = misfit_of(error)
    misfit.steps.append(step)
    return misfit


def of_pydantic(error: Any, names: Collection[str]) -> Misfit:
    """Read a `ValidationError` of pydantic.

    Args:
        error: The error.
        names: Those of all fields that the models have. What else stands in a place is a key.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    steps = [_step(part, names) for part in found[0]["loc"]]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Misfit(f"{found[0]['type']}{more}", error, steps[::-1])


def _step(part: int | str, names: Collection[str]) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part in names else KEY


_PLACE = re.compile(r"at `(?:key in )?\$([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")


def of_msgspec(error: Exception) -> Misfit:
    """Read a `ValidationError` of msgspec, which writes keys of dicts as `[...]` too."""
    text = str(error)
    steps = [found[1]] if (found := _PLACE.search(text)) else []
    if missing := _MISSING.match(text):
        return Misfit("missing", error, [f".{missing[1]}", *steps])
    return Misfit(type(error).__name__, error, steps)
