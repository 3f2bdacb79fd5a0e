"""Bring enums, dataclasses and tuples back by the handler's annotations.

They travel as plain values. The annotations of the function that gets them say what to build, so a message can never
choose a class; and an argument that they would not bring back is refused where it is sent.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Union, get_args, get_origin

from redisq.errors import DecodeError

__all__ = ["Shape", "shape_of"]

Build = Callable[[Any], Any]


class Shape:
    """The parameters of one handler: what its arguments have to be built from.

    Attributes:
        plain: Nothing has to be built: arguments pass as they come.
        result: Builds what the handler returned out of its plain form.
    """

    def __init__(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> None:
        self._signature = signature
        self._builds: dict[str, Build] = {}
        for name in signature.parameters:
            build = _builder(hints.get(name, Any))
            if build:
                self._builds[name] = build
        self.plain = not self._builds
        self.result: Build = _builder(hints.get("return", Any)) or _as_it_is

    def revive(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments as the annotations want them.

        Raises:
            DecodeError: A value does not fit its annotation.
            TypeError: The arguments do not fit the signature.
        """
        if self.plain:
            return args, kwargs
        bound = self._signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            build = self._builds.get(name)
            if build is None:
                continue
            kind = self._signature.parameters[name].kind
            try:
                if kind is inspect.Parameter.VAR_POSITIONAL:
                    bound.arguments[name] = tuple(build(item) for item in value)
                elif kind is inspect.Parameter.VAR_KEYWORD:
                    bound.arguments[name] = {key: build(item) for key, item in value.items()}
                else:
                    bound.arguments[name] = build(value)
            except Exception as error:  # any code may stand in a dataclass
                raise DecodeError(f"argument {name}: {type(error).__name__}, it does not fit its annotation") from error
        return bound.args, bound.kwargs

    def compare(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], other_args: Sequence[Any], other_kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any, Any]]:
        """Give each parameter's name with its argument in the one call and in the other."""
        one, other = self._signature.bind(*args, **kwargs).arguments, self._signature.bind(*other_args, **other_kwargs).arguments
        return ((name, value, other[name]) for name, value in one.items())


def shape_of(handler: Callable[..., Any], signature: inspect.Signature | None = None) -> Shape:
    """Read a handler's annotations; those that do not resolve (names of type checkers only) build nothing.

    Args:
        handler: The function.
        signature: Its parameters that callers give; None: all.
    """
    return Shape(signature or inspect.signature(handler), _hints_of(handler, getattr(inspect.unwrap(handler), "__globals__", {})))


def _hints_of(annotated: Any, names: Mapping[str, Any]) -> dict[str, Any]:
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


def _builder(hint: Any) -> Build | None:
    """Return what makes a value of the annotation out of its plain form; None when there is nothing to do."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _builder(arguments[0])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: value if isinstance(value, hint) else hint(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    if origin is tuple or hint is tuple:
        return _tuple(arguments)
    if origin in (list, Sequence, dict, Mapping):
        each = _builder(arguments[-1])
        return each and (_list(each) if len(arguments) == 1 else _dict(each))
    return None


def _list(each: Build) -> Build:
    return lambda value: [each(item) for item in value]


def _dict(each: Build) -> Build:
    return lambda value: {key: each(item) for key, item in value.items()}


def _as_it_is(value: Any) -> Any:
    return value


def _union(choices: tuple[Any, ...]) -> Build | None:
    """`X | None` is built as X; of a wider union the plain value passes, for nothing says which was meant."""
    some = [choice for choice in choices if choice is not type(None)]
    build = _builder(some[0]) if len(some) == 1 else None
    return build and (lambda value: None if value is None else build(value))


def _tuple(arguments: tuple[Any, ...]) -> Build:
    if not arguments or arguments[-1] is Ellipsis:
        each = _builder(arguments[0]) if arguments else None
        return lambda value: tuple(each(item) for item in value) if each else tuple(value)
    builds = [_builder(argument) for argument in arguments]

    def build(value: Any) -> Any:
        return tuple(make(item) if make else item for make, item in zip(builds, value, strict=True))

    return build


def _dataclass(kind: type) -> Build:
    # Hints are read when first needed: a dataclass may hold its own kind.
    builds: dict[str, Build | None] = {}

    def build(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise TypeError(f"want a map for {kind.__name__}")
        if not builds:
            builds.update({name: _builder(hint) for name, hint in _hints_of(kind, vars(sys.modules[kind.__module__])).items()})
        fields = {}
        for name, item in value.items():
            make = builds.get(name)
            fields[name] = make(item) if make else item
        return kind(**fields)

    return build
