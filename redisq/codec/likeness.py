"""Tell how much a plain value looks like what travels for a value of an annotation: a union takes the best choice.

A list of tuples is no list of named tuples, whose plain forms are lists; a dict with a `TypedDict`'s keys is one already.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Callable
from enum import Enum, IntEnum
from types import NoneType
from typing import Any, Union, get_args, get_origin

from redisq.codec.annotations import LISTS, MAPS, PLAIN, WRAPPERS, hints_of, is_typed_dict, kinds_of
from redisq.codec.models import is_model

__all__ = ["Likeness", "likeness"]


class Likeness(IntEnum):
    """How much a plain value looks like a value of an annotation."""

    NO = 0
    #: An object of one of its classes may travel so.
    OBJECT = 1
    #: It is such a dict, as it stands, with the plain form of an object in it.
    DICT = 2
    #: It is such a value, as it stands.
    SAME = 3


Look = Callable[[Any], Likeness]


def likeness(hint: Any, within: tuple[Any, ...] = ()) -> Look:
    """Return what tells how much a plain value looks like a value of the annotation.

    Args:
        hint: The annotation.
        within: Type aliases and classes that are being read: one may hold itself. It is not looked into again.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in WRAPPERS:
        return likeness(arguments[0], within)
    if hint in within:
        return _always(Likeness.SAME)
    if hasattr(hint, "__value__"):  # a type alias
        return likeness(hint.__value__, (*within, hint))
    if isinstance(hint, typing.NewType):
        return likeness(hint.__supertype__, within)
    if origin in (Union, types.UnionType):
        looks = [likeness(choice, within) for choice in arguments]
        return lambda value: max(look(value) for look in looks)
    kind = origin or hint
    if kind in (None, NoneType):
        return _same_if(lambda value: value is None)
    if isinstance(kind, type):
        if issubclass(kind, Enum) or is_model(kind):
            return _always(Likeness.OBJECT)
        if is_typed_dict(kind):
            return _typed_dict(kind, within)
        if kind is tuple:
            return _tuple(arguments, within)
        if kind in LISTS and len(arguments) == 1:
            return _list(_plain(kind), likeness(arguments[0], within))
        if kind in MAPS and len(arguments) == 2:
            return _dict(likeness(arguments[0], within), likeness(arguments[1], within))
        if issubclass(kind, PLAIN) and kind not in PLAIN:
            # A subclass of tuple travels as a list.
            bases = (list,) if issubclass(kind, tuple) else tuple(plain for plain in PLAIN if issubclass(kind, plain))
            return lambda value: Likeness.OBJECT if type(value) in bases else Likeness.NO
    return _plain(hint)


def _always(answer: Likeness) -> Look:
    return lambda _: answer


def _same_if(is_so: Callable[[Any], bool]) -> Look:
    return lambda value: Likeness.SAME if is_so(value) else Likeness.NO


def _plain(hint: Any) -> Look:
    kinds = kinds_of(hint)
    return _always(Likeness.SAME) if kinds is None else _same_if(lambda value: type(value) in kinds)


def _list(outside: Look, item: Look) -> Look:
    return lambda value: min(map(item, value), default=Likeness.SAME) if outside(value) else Likeness.NO


def _dict(key: Look, item: Look) -> Look:
    def look(value: Any) -> Likeness:
        if type(value) is not dict:
            return Likeness.NO
        return min((*map(key, value), *map(item, value.values())), default=Likeness.SAME)

    return look


def _tuple(arguments: tuple[Any, ...], within: tuple[Any, ...]) -> Look:
    def is_tuple(value: Any) -> bool:
        return type(value) is tuple

    if not arguments:
        return _same_if(is_tuple)
    if arguments[-1] is Ellipsis:
        return _list(_same_if(is_tuple), likeness(arguments[0], within))
    looks = [likeness(argument, within) for argument in arguments]

    def look(value: Any) -> Likeness:
        if not is_tuple(value) or len(value) != len(looks):
            return Likeness.NO
        return min((each(item) for each, item in zip(looks, value, strict=True)), default=Likeness.SAME)

    return look


def _typed_dict(kind: Any, within: tuple[Any, ...]) -> Look:
    needed, known = kind.__required_keys__, kind.__required_keys__ | kind.__optional_keys__

    @functools.cache
    def looks() -> dict[str, Look]:
        # Read when first needed: it may be made before all that its fields name.
        hints = hints_of(kind, vars(sys.modules.get(kind.__module__, typing)))
        return {name: likeness(hint, (*within, kind)) for name, hint in hints.items()}

    def look(value: Any) -> Likeness:
        if type(value) is not dict or not needed <= value.keys() <= known:
            return Likeness.NO
        fields = looks()
        worst = min((fields[name](item) for name, item in value.items() if name in fields), default=Likeness.SAME)
        return worst if worst in (Likeness.NO, Likeness.SAME) else Likeness.DICT

    return look
