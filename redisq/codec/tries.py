"""Count how many models pydantic would build for a plain value, before it does, and refuse more than a limit.

For a union of models pydantic builds each of them and keeps the best. When models hold themselves through such a union,
the number doubles with each level: 40 levels in a message of a kilobyte would stop a worker for ever.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Union, get_args, get_origin

from redisq.codec.annotations import LISTS, MAPS, WRAPPERS

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
    models = tuple(models)
    reachable = _reachable(models)
    if not any(_holds_itself(model) for model in reachable):
        return None
    widest = max(len(models), *(len(_models_of(hint)) for model in reachable for _, hint, _ in _fields(model)))

    def check(value: Any) -> None:
        if _at_most(value, widest) <= MAX_TRIES:
            return  # as nearly all, and found out in a tenth of the time
        tries: dict[tuple[Any, int], int] = {}
        if sum(_tries(model, value, tries) for model in models) > MAX_TRIES:
            raise TooManyTries(
                f"pydantic would try more than {MAX_TRIES:,} models, since each level of a union of models doubles their number:"
                " give the union a discriminator, as in Field(discriminator=...), or send fewer levels"
            )

    return check


def names_of(models: Iterable[Any]) -> set[str]:
    """Return the names of all fields that some models and those inside of them have, their aliases, and the models' own names."""
    found = set()
    for model in _reachable(models):
        found.add(model.__name__)
        for name, field in model.model_fields.items():
            found |= {name, field.alias, field.validation_alias}
    return {name for name in found if isinstance(name, str)}


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and hasattr(hint, "__pydantic_validator__") and hasattr(hint, "model_fields")


def _is_tagged(metadata: Iterable[Any]) -> bool:
    """Whether pydantic sees by one field which model of a union is meant."""
    return any(getattr(each, "discriminator", None) is not None for each in metadata)


def _fields(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """Give the name of each field, its annotation, and whether that is a union with a discriminator."""
    for name, field in model.model_fields.items():
        yield name, field.annotation, _is_tagged((field, *field.metadata))


def _inside(hint: Any, *, tagged: bool = False) -> Iterator[tuple[Any, bool]]:
    """Give the models of an annotation, each with whether it is one of several between which only trying decides."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in WRAPPERS:
        yield from _inside(arguments[0], tagged=tagged or _is_tagged(arguments[1:]))
    elif _is_model(hint):
        yield hint, False
    else:
        several = origin in (Union, types.UnionType) and not tagged and sum(map(bool, map(_models_of, arguments))) > 1
        for argument in arguments:
            yield from ((model, several or tried) for model, tried in _inside(argument))


def _models_of(hint: Any) -> list[Any]:
    return [model for model, _ in _inside(hint)]


def _reachable(models: Iterable[Any]) -> set[Any]:
    found: set[Any] = set()
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.add(model)
            # Of no effect on a model whose annotations are resolved.
            model.model_rebuild(raise_errors=False)
            waiting += [each for _, hint, _ in _fields(model) for each in _models_of(hint)]
    return found


def _holds_itself(model: Any) -> bool:
    """Whether the model is in a union of one of its own fields, or below one."""
    tried = {each for _, hint, tagged in _fields(model) for each, is_tried in _inside(hint, tagged=tagged) if is_tried}
    return model in _reachable(tried)


def _at_most(value: Any, widest: int) -> int:
    """Return how many models pydantic would build for a plain value if each dict in it were tried as that many."""
    if isinstance(value, dict):
        return widest * (1 + sum(_at_most(item, widest) for item in value.values()))
    return sum(_at_most(item, widest) for item in value) if isinstance(value, list | tuple) else 0


def _tries(hint: Any, value: Any, known: dict[tuple[Any, int], int], *, tagged: bool = False) -> int:
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
        return _tries(arguments[0], value, known, tagged=tagged or _is_tagged(arguments[1:]))
    if origin in (Union, types.UnionType):
        of_each = [_tries(choice, value, known) for choice in arguments]
        return max(of_each) if tagged else sum(of_each)
    if _is_model(hint):
        if not isinstance(value, dict):
            return 0
        place = (hint, id(value))
        if place not in known:
            known[place] = 1 + sum(
                _tries(field, _given(hint, name, value), known, tagged=is_tagged) for name, field, is_tagged in _fields(hint)
            )
        return known[place]
    if origin in MAPS and isinstance(value, dict) and len(arguments) == 2:
        return sum(_tries(arguments[1], item, known) for item in value.values())
    if (origin in LISTS or origin in (tuple, set, frozenset)) and not isinstance(value, dict):
        each = [*arguments] if origin is tuple and arguments[-1:] != (Ellipsis,) else arguments[:1] * len(value)
        return sum(_tries(choice, item, known) for choice, item in zip(each, value, strict=False))
    return 0


def _given(model: Any, name: str, value: dict[Any, Any]) -> Any:
    """Return a field's plain value, which may have the field's name or an alias."""
    field = model.model_fields[name]
    names = (name, field.alias, field.validation_alias)
    return next((value[each] for each in names if isinstance(each, str) and each in value), None)
