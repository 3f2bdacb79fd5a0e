"""Bring values of classes of their own back by the handler's annotations: enums, dataclasses, models, named tuples.

They travel as plain values. The annotations of the function that gets them say what to build, so a message can never
choose a class; and an argument that they would not bring back is refused where it is sent (`arrival.py`).
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections import abc, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from types import NoneType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from redisq.codec.annotations import LISTS, MAPS, PLAIN, WRAPPERS, hints_of, is_typed_dict, kinds_of
from redisq.codec.likeness import likeness
from redisq.codec.misfits import KEY, FitsNone, Misfit, inside, misfit_of
from redisq.codec.models import fields_of, is_model, library_builder, none_by_default, pydantic_builder, required_of
from redisq.codec.tries import TooManyTries
from redisq.errors import DecodeError

__all__ = ["Shape", "shape_of"]

Build = Callable[[Any], Any]

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ALL_OTHERS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Shape:
    """The parameters of one handler: what its arguments have to be built from.

    Attributes:
        names: Of the parameters that may be given by their place.
        plain: Nothing has to be built: arguments pass as they come.
        unresolved: Parameters whose annotation names what is not there at run time.
        result: Builds what the handler returned out of its plain form.
    """

    def __init__(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> None:
        self._signature = signature
        annotated = (name for name, parameter in signature.parameters.items() if parameter.annotation is not parameter.empty)
        self.unresolved = frozenset(annotated) - frozenset(hints)
        self._builds: dict[str, Build] = {}
        self.names = [name for name, parameter in signature.parameters.items() if parameter.kind in _BY_PLACE]
        for name, parameter in signature.parameters.items():
            build = _builder(_named_arguments(hints.get(name, Any), parameter))
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                build = _list(build)
            if build:
                self._builds[name] = _or_none(build) if parameter.default is None else build
        self.plain = not self._builds
        named = [name for name, parameter in signature.parameters.items() if parameter.kind not in _ALL_OTHERS]
        self._places = [(name, named.index(name) if name in self.names else sys.maxsize) for name in named if name in self._builds]
        self._collects = len(self._places) < len(self._builds)
        self.result: Build = _builder(_awaited(hints.get("return", Any))) or _as_it_is

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
            try:
                bound.arguments[name] = build(value)
            except TooManyTries as error:
                raise DecodeError(f"argument {name}: {error}") from error
            except Exception as error:  # noqa: BLE001 - any code may stand in a dataclass
                misfit = misfit_of(error)
                raise DecodeError(f"argument {misfit.at(name)}") from (misfit.error or error)
        return bound.args, bound.kwargs

    def concerns(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether one of the arguments may have to be built."""
        if self._collects and (kwargs or len(args) > len(self.names)):
            return True
        return any(place < len(args) or name in kwargs for name, place in self._places)

    def compare(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], other_args: Sequence[Any], other_kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any, Any]]:
        """Give each parameter's name with its argument in the one call and in the other."""
        one, other = self._signature.bind(*args, **kwargs).arguments, self._signature.bind(*other_args, **other_kwargs).arguments
        return ((name, value, other[name]) for name, value in one.items())


def _named_arguments(hint: Any, parameter: inspect.Parameter) -> Any:
    """Return the annotation of a parameter's value: of `**named: X` that of a dict, of `**named: Unpack[X]` X itself."""
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
        return hint
    return get_args(hint)[0] if get_origin(hint) is typing.Unpack else dict[str, hint]


def shape_of(handler: Callable[..., Any], signature: inspect.Signature | None = None) -> Shape:
    """Read a handler's annotations; those that do not resolve (names of type checkers only) build nothing.

    Args:
        handler: The function.
        signature: Its parameters that callers give; None: all.
    """
    return Shape(signature or inspect.signature(handler), hints_of(handler, getattr(inspect.unwrap(handler), "__globals__", {})))


#: Plain types whose constructor does not take one of their own.
_CALENDAR = (datetime, date, time, timedelta, UUID)


def _builder(hint: Any, within: tuple[Any, ...] = ()) -> Build | None:
    """Return what makes a value of the annotation out of its plain form; None when there is nothing to do.

    Args:
        hint: The annotation.
        within: Type aliases that are being read: one may hold itself.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in WRAPPERS:
        return _builder(arguments[0], within)
    if hasattr(hint, "__value__"):  # a type alias
        return None if hint in within else _builder(hint.__value__, (*within, hint))
    if isinstance(hint, typing.NewType):
        return _builder(hint.__supertype__, within)
    if origin in (Union, types.UnionType):
        return _union(arguments, within)
    if origin is typing.Literal:
        # Of its members only those of enums do not arrive as they are.
        kinds = tuple(dict.fromkeys(type(value) for value in arguments))
        return _union(kinds, within) if any(issubclass(kind, Enum) for kind in kinds) else None
    kind = origin or hint
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Enum):
        return lambda value: value if isinstance(value, kind) else kind(value)
    if build := library_builder(hint, kind):
        return build
    if is_model(kind):
        return _fields(kind)
    if is_typed_dict(kind):
        return _typed_dict(kind)
    if kind is tuple:
        return _tuple(arguments, within)
    if kind in LISTS and len(arguments) == 1:
        return _list(_builder(arguments[0], within))
    if kind in MAPS and len(arguments) == 2:
        return _dict(_builder(arguments[0], within), _builder(arguments[1], within))
    if issubclass(kind, PLAIN) and kind not in PLAIN:
        return _subclass(kind, arguments, within)
    return None


def _or_none(build: Build) -> Build:
    """Let None pass where it is the default, as in `mood: Mood = None`."""
    return lambda value: None if value is None else build(value)


def _want(kinds: type | tuple[type, ...], value: Any, name: str) -> None:
    if not isinstance(value, kinds):
        raise Misfit(f"want {name}, not {type(value).__name__}")


def _each(build: Build, values: Iterable[Any]) -> list[Any]:
    """Build the items of a list or tuple."""
    # No comprehension: the number of items says which one failed.
    items: list[Any] = []
    try:
        for value in values:
            items.append(build(value))
    except Exception as error:  # noqa: BLE001 - as in `revive`
        raise inside(error, f"[{len(items)}]") from None
    return items


def _list(each: Build | None) -> Build | None:
    if each is None:
        return None

    def build(value: Any) -> Any:
        _want((list, tuple), value, "a list")
        items = _each(each, value)
        return items if isinstance(value, list) else tuple(items)

    return build


def _dict(key: Build | None, each: Build | None) -> Build | None:
    if key is None and each is None:
        return None

    def build(value: Any) -> Any:
        _want(dict, value, "a map")
        try:
            return {key(name) if key else name: each(item) if each else item for name, item in value.items()}
        except Exception as error:  # noqa: BLE001 - as in `revive`
            raise inside(error, KEY) from None

    return build


def _awaited(hint: Any) -> Any:
    """Return what an awaitable gives that a plain function returns."""
    return get_args(hint)[-1] if get_origin(hint) in (abc.Awaitable, abc.Coroutine) else hint


def _as_it_is(value: Any) -> Any:
    return value


def _union(choices: tuple[Any, ...], within: tuple[Any, ...]) -> Build | None:
    """Build the choice that the value looks most like, the first of several; what is of one of the plain choices stays so.

    Where nothing says which was meant, the sender compares what would arrive, and refuses it.
    """
    some = [choice for choice in choices if choice is not NoneType]
    models = [choice for choice in some if isinstance(choice, type) and library_builder(choice, choice)]
    models = [model for model in models if hasattr(model, "model_validate")]
    # Of its own models pydantic knows best which it is.
    builds = [(pydantic_builder(*models), likeness(models[0]))] if len(models) > 1 else []
    plain: list[type] = []
    for choice in some:
        if len(models) > 1 and choice in models:
            continue
        if build := _builder(choice, within):
            builds.append((build, likeness(choice)))
        elif (kinds := kinds_of(choice)) is None:
            return None
        else:
            plain += kinds
    if not builds:
        return None

    def build_one(value: Any) -> Any:
        if (value is None and len(some) < len(choices)) or type(value) in plain:
            return value
        if len(builds) == 1:
            return builds[0][0](value)
        for build, _ in sorted(builds, key=lambda each: each[1](value), reverse=True):
            try:
                return build(value)
            except FitsNone as error:
                if error.in_class:
                    # To go on in each union that this one is in would take a time that doubles with each level.
                    raise
            except TooManyTries:
                raise
            except Exception:  # noqa: BLE001, S112 - any code may stand in a class of the app
                continue
        raise FitsNone("it fits none of the classes")

    return build_one


def _field(build: Build | None, name: str, value: Any) -> Any:
    """Build the value of a class's field; None: it stays as it is."""
    try:
        return build(value) if build else value
    except Exception as error:  # noqa: BLE001 - as in `revive`
        if isinstance(error, FitsNone):
            error.in_class = True
        raise inside(error, f".{name}") from None


def _tuple(arguments: tuple[Any, ...], within: tuple[Any, ...]) -> Build:
    if not arguments or arguments[-1] is Ellipsis:
        each = _builder(arguments[0], within) if arguments else None

        def build(value: Any) -> Any:
            _want((list, tuple), value, "a tuple")
            return tuple(_each(each, value)) if each else tuple(value)

        return build
    builds = [_builder(argument, within) for argument in arguments]

    def build_each(value: Any) -> Any:
        _want((list, tuple), value, "a tuple")
        if len(value) != len(builds):
            raise Misfit(f"want a tuple of {len(builds)}, not of {len(value)}")
        makes = iter(builds)
        return tuple(_each(lambda item: make(item) if (make := next(makes)) else item, value))

    return build_each


def _builders_of(kind: type) -> Callable[[], Mapping[str, Build]]:
    """Return how to find what builds a class's fields. It is found when first needed: a class may hold its own kind."""
    found: dict[str, Build] = {}
    names: list[Any] = []

    def read() -> Mapping[str, Build]:
        if not names:
            names.append(vars(sys.modules.get(kind.__module__, typing)))
            nones = none_by_default(kind)
            for name, hint in hints_of(kind, names[0]).items():
                if make := _builder(hint):
                    found[name] = _or_none(make) if name in nones else make
        return found

    return read


def _fields(kind: type) -> Build:
    builders = _builders_of(kind)

    def build(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        _want(dict, value, f"a map for {kind.__name__}")
        named = {given: name for name, given in fields_of(kind).items()}
        # Before what is in it is built: a union learns by it that another class is meant.
        if not required_of(kind) <= value.keys() <= named.keys():
            raise Misfit(_other_fields(kind, required_of(kind) - value.keys(), len(value.keys() - named.keys())))
        builds = builders()
        return kind(**{given: _field(builds.get(named.get(given, "")), given, item) for given, item in value.items()})

    return build


def _other_fields(kind: type, missing: Collection[str], unknown: int) -> str:
    """Say how a dict's keys differ from a class's fields. Keys that are no fields are the sender's, and not shown."""
    words = [f"{', '.join(sorted(missing))} missing"] if missing else []
    words += [f"{unknown} unknown"] if unknown else []
    return f"want the fields of {kind.__name__}: {', '.join(words)}"


def _typed_dict(kind: type) -> Build:
    builders = _builders_of(kind)

    def build(value: Any) -> Any:
        _want(dict, value, f"a map for {kind.__name__}")
        builds = builders()
        return {name: _field(builds[name], name, item) if name in builds else item for name, item in value.items()}

    return build


def _subclass(kind: type, arguments: tuple[Any, ...], within: tuple[Any, ...]) -> Build | None:
    """Build a value of a subclass of a plain type by calling the class with the plain value. Other values pass."""
    if issubclass(kind, defaultdict):
        return None  # its function does not travel
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    inner: Build | None = None
    if issubclass(kind, dict) and len(arguments) == 2:
        inner = _dict(_builder(arguments[0], within), _builder(arguments[1], within))
    elif issubclass(kind, list) and len(arguments) == 1:
        inner = _list(_builder(arguments[0], within))
    make: Build = kind
    # A subclass of tuple travels as a list.
    bases = (list, tuple) if issubclass(kind, tuple) else tuple(plain for plain in PLAIN if issubclass(kind, plain))

    def build(value: Any) -> Any:
        if isinstance(value, kind) or type(value) not in bases:
            return value
        if type(value) not in _CALENDAR:
            return make(inner(value) if inner else value)
        try:
            return make(value)
        except Exception:  # noqa: BLE001 - the constructors of most such classes want numbers or text
            return value

    return build


def _named_tuple(kind: Any) -> Build:
    builders = _builders_of(kind)

    def build(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        _want((list, tuple), value, f"a list for {kind.__name__}")
        if not len(kind._fields) - len(kind._field_defaults) <= len(value) <= len(kind._fields):
            raise Misfit(f"want the fields {', '.join(kind._fields)}, found {len(value)}")
        builds = builders()
        return kind(*[_field(builds.get(name), name, item) for name, item in zip(kind._fields, value, strict=False)])

    return build
