"""Count how many models pydantic would build for a plain value, before it does, and refuse more than a limit.

For a union of models pydantic builds each of them and keeps the best. When models hold themselves through such a union,
the number doubles with each level: 40 levels in a message of a kilobyte would stop a worker for ever.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any, NamedTuple, Union, get_args, get_origin

from redisq.codec.annotations import LISTS, MAPS, WRAPPERS, hints_of, is_typed_dict

__all__ = ["MAX_TRIES", "TooManyTries", "check_tries", "names_of"]

#: Models that pydantic may build for one argument. 100,000 take some tenths of a second.
MAX_TRIES = 100_000


class TooManyTries(ValueError):
    """A plain value would take pydantic too long."""


def check_tries(models: Iterable[Any]) -> Callable[[Any], None] | None:
    """Return what refuses a plain value for which pydantic would build too many models. None: no union holds itself.

    Args:
        models: One of them is what the value is meant for.
    """
    tries = _Tries(models)
    return tries.check if tries.may_double else None


def names_of(models: Iterable[Any]) -> set[str]:
    """Return the names of all fields that some models and those inside of them have, their aliases, and the models' own names."""
    return _Tries(models).names


class _Field(NamedTuple):
    """A field of a model.

    Attributes:
        names: Those that a plain value may give it.
        hint: Its annotation.
        tagged: The annotation is a union, and pydantic sees by one field which of its models is meant.
    """

    names: tuple[str, ...]
    hint: Any
    tagged: bool


class _Tries:
    """Counts the models that pydantic builds for plain values.

    Args:
        models: Those that are tried for a value.

    Attributes:
        names: Those of the models and of all inside of them, and of their fields.
        may_double: One of the models holds itself through a union that only trying decides.
    """

    def __init__(self, models: Iterable[Any]) -> None:
        self._models = tuple(models)
        self._fields: dict[Any, list[_Field]] = {}
        waiting = list(self._models)
        while waiting:
            model = waiting.pop()
            if model not in self._fields:
                self._fields[model] = [*_fields(model)]
                waiting += [each for field in self._fields[model] for each, _ in _inside(field.hint)]
        self.names = {name for fields in self._fields.values() for field in fields for name in field.names}
        self.names |= {model.__name__ for model in self._fields}
        self.may_double = any(map(self._holds_itself, self._fields))
        in_one = [len([*_inside(field.hint)]) for fields in self._fields.values() for field in fields]
        self._widest = max(len(self._models), *in_one, 1)

    def _holds_itself(self, model: Any) -> bool:
        """Return whether a field of the model has a union that contains the model again, at any depth."""
        waiting = [each for field in self._fields[model] for each, is_tried in _inside(field.hint, tagged=field.tagged) if is_tried]
        found: set[Any] = set()
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting += [inner for field in self._fields[each] for inner, _ in _inside(field.hint)]
        return model in found

    def check(self, value: Any) -> None:
        """Accept a plain value.

        Raises:
            TooManyTries: Pydantic would build too many models for it.
        """
        if self._at_most(value) <= MAX_TRIES:
            return  # as nearly all, and found out in a tenth of the time
        known: dict[tuple[Any, int], int] = {}
        if sum(self._count(model, value, known) for model in self._models) > MAX_TRIES:
            raise TooManyTries(
                f"pydantic would try more than {MAX_TRIES:,} models, since each level of a union of models doubles their number:"
                " give the union a discriminator, as in Field(discriminator=...), or send fewer levels"
            )

    def _at_most(self, value: Any) -> int:
        """Return how many models pydantic would build if each dict in the value were tried as the most that a field has."""
        if isinstance(value, dict):
            return self._widest * (1 + sum(map(self._at_most, value.values())))
        return sum(map(self._at_most, value)) if isinstance(value, list | tuple) else 0

    def _count(self, hint: Any, value: Any, known: dict[tuple[Any, int], int], *, tagged: bool = False) -> int:
        """Return how many models pydantic builds for a plain value.

        Args:
            hint: What it is meant for.
            value: The plain value.
            known: The answers for a model and the identity of a value.
            tagged: The hint is a union with a discriminator.
        """
        if not isinstance(value, dict | list | tuple):
            return 0
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in WRAPPERS:
            return self._count(arguments[0], value, known, tagged=tagged or _is_tagged(arguments[1:]))
        if origin in (Union, types.UnionType):
            of_each = [self._count(choice, value, known) for choice in arguments]
            return max(of_each) if tagged else sum(of_each)
        if _is_model(hint):
            if not isinstance(value, dict):
                return 0
            place = (hint, id(value))
            if place not in known:
                known[place] = 1 + sum(
                    self._count(field.hint, value[name], known, tagged=field.tagged)
                    for field in self._fields[hint]
                    if (name := next((name for name in field.names if name in value), None)) is not None
                )
            return known[place]
        if origin in MAPS and isinstance(value, dict) and len(arguments) == 2:
            return sum(self._count(arguments[1], item, known) for item in value.values())
        if (origin in LISTS or origin in (tuple, set, frozenset)) and not isinstance(value, dict):
            each = [*arguments] if origin is tuple and arguments[-1:] != (Ellipsis,) else arguments[:1] * len(value)
            return sum(self._count(choice, item, known) for choice, item in zip(each, value, strict=False))
        return 0


def _is_model(hint: Any) -> bool:
    """Return whether pydantic builds the fields of this class: it is a model, a dataclass or a `TypedDict`."""
    return isinstance(hint, type) and (hasattr(hint, "model_fields") or is_dataclass(hint) or is_typed_dict(hint))


def _is_tagged(metadata: Iterable[Any]) -> bool:
    """Whether pydantic sees by one field which model of a union is meant."""
    return any(getattr(each, "discriminator", None) is not None for each in metadata)


def _fields(model: Any) -> Iterator[_Field]:
    if not hasattr(model, "model_fields"):
        hints = hints_of(model, vars(sys.modules.get(model.__module__, typing)))
        yield from (_Field((name,), hint, False) for name, hint in hints.items())
        return
    # Of no effect on a model whose annotations are resolved.
    model.model_rebuild(raise_errors=False)
    for name, field in model.model_fields.items():
        names = (name, field.alias, field.validation_alias)
        known = tuple(each for each in names if isinstance(each, str))
        yield _Field(known, field.annotation, _is_tagged((field, *field.metadata)))


def _inside(hint: Any, *, tagged: bool = False) -> Iterator[tuple[Any, bool]]:
    """Give the models of an annotation, each with whether it is one of several between which only trying decides."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in WRAPPERS:
        yield from _inside(arguments[0], tagged=tagged or _is_tagged(arguments[1:]))
    elif _is_model(hint):
        yield hint, False
    else:
        inside = [[*_inside(argument)] for argument in arguments]
        several = origin in (Union, types.UnionType) and not tagged and sum(map(bool, inside)) > 1
        for models in inside:
            yield from ((model, several or tried) for model, tried in models)
