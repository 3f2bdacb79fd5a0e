"""Classes of data, to plain values and back: dataclasses, and the models of pydantic, msgspec and attrs.

Each library makes and validates its own instances. None is imported before a class of it is met: then it is there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Union
from uuid import UUID

from redisq.codec.misfits import of_msgspec, of_pydantic
from redisq.codec.tries import check_tries, names_of

__all__ = ["fields_of", "is_model", "library_builder", "none_by_default", "parts_of", "plain_form", "required_of"]

#: What msgspec leaves to this codec.
_OURS = (bytes, datetime, date, time, timedelta, Decimal, UUID)


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


def _is_struct(kind: Any) -> bool:
    return hasattr(kind, "__struct_fields__")


def is_model(kind: type) -> bool:
    """Whether instances of the class are data with named fields, which travel as a map."""
    return _is_pydantic(kind) or _is_struct(kind) or hasattr(kind, "__attrs_attrs__") or dataclasses.is_dataclass(kind)


def plain_form(value: Any) -> Any:
    """Return what an instance travels as: plain values, or such as this codec makes plain.

    Raises:
        Exception: Its library does not write it.
    """
    kind = type(value)
    if _is_pydantic(kind):
        return value.model_dump(mode="json", round_trip=True, warnings=False, by_alias=not _knows_names())
    if _is_struct(kind):
        import msgspec

        return msgspec.to_builtins(value, builtin_types=_OURS)
    return {given: getattr(value, name) for name, given in fields_of(kind).items()}


def fields_of(kind: type) -> Mapping[str, str]:
    """Return the fields of an attrs class or a dataclass that its constructor takes: each with its argument's name."""
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: field.alias or field.name.lstrip("_") for field in kind.__attrs_attrs__ if field.init}
    return {field.name: field.name for field in dataclasses.fields(kind) if field.init}


def required_of(kind: type) -> frozenset[str]:
    """Return the arguments that the constructor of an attrs class or a dataclass cannot do without."""
    given = fields_of(kind)
    if hasattr(kind, "__attrs_attrs__"):
        import attrs

        return frozenset(given[field.name] for field in kind.__attrs_attrs__ if field.init and field.default is attrs.NOTHING)
    if not getattr(kind, "__dataclass_params__").init:  # noqa: B009 - unknown to type checkers
        return frozenset()  # its own constructor knows
    none = dataclasses.MISSING
    return frozenset(
        field.name for field in dataclasses.fields(kind) if field.init and field.default is none and field.default_factory is none
    )


def none_by_default(kind: Any) -> frozenset[str]:
    """Return the fields of a dataclass, an attrs class or a named tuple whose default is None, whatever their annotation says."""
    if hasattr(kind, "__attrs_attrs__"):
        return frozenset(field.name for field in kind.__attrs_attrs__ if field.default is None)
    if dataclasses.is_dataclass(kind):
        return frozenset(field.name for field in dataclasses.fields(kind) if field.default is None)
    return frozenset(name for name, default in getattr(kind, "_field_defaults", {}).items() if default is None)


def library_builder(hint: Any, kind: type) -> Callable[[Any], Any] | None:
    """Return what makes an instance of a pydantic model or a msgspec struct out of its plain form; None: it is neither.

    Args:
        hint: The annotation, with its parameters if it is generic.
        kind: Its class.
    """
    if _is_pydantic(kind):
        return pydantic_builder(hint)
    if not _is_struct(kind):
        return None

    def build(value: Any) -> Any:
        import msgspec

        try:
            return value if isinstance(value, kind) else msgspec.convert(value, hint, builtin_types=_OURS)
        except msgspec.ValidationError as error:
            raise of_msgspec(error) from error

    return build


def pydantic_builder(*hints: Any) -> Callable[[Any], Any]:
    """Return what makes an instance of one of these pydantic models; pydantic finds out of which.

    What it makes raises `TooManyTries` for a value that would take pydantic too long.
    """

    @functools.cache
    def adapter() -> tuple[Any, Callable[[Any], None] | None]:
        # Made when first needed: a model may be made before all that its fields name.
        from pydantic import TypeAdapter

        return TypeAdapter(Union[hints]), check_tries(hints)  # noqa: UP007 - of as many as there are

    names = {"by_alias": True, "by_name": True} if _knows_names() else {}

    def build(value: Any) -> Any:
        validator, check = adapter()
        if check:
            check(value)
        # What is strict about Python's types cannot be strict about plain forms: a date is text there.
        try:
            return validator.validate_python(value, strict=False, **names)
        except _validation_error() as error:
            raise of_pydantic(error, names_of(hints)) from error

    return build


def _validation_error() -> type[Exception]:
    from pydantic import ValidationError

    return ValidationError


@functools.cache
def _knows_names() -> bool:
    """Whether this pydantic finds fields by their names, whatever their aliases: from 2.11 on."""
    from pydantic import VERSION

    return tuple(int(part) for part in VERSION.split(".")[:2]) >= (2, 11)


def parts_of(value: Any) -> list[Any] | None:
    """Return what makes up an instance, for a comparison field by field; None: it is of no such class."""
    kind = type(value)
    if _is_pydantic(kind):
        # Not what a `cached_property` has kept beside the fields.
        fields = vars(value)
        return [[fields.get(name) for name in kind.model_fields], value.__pydantic_extra__, value.__pydantic_private__]
    if _is_struct(kind):
        return [getattr(value, name) for name in kind.__struct_fields__]
    if hasattr(kind, "__attrs_attrs__"):
        return [getattr(value, field.name) for field in kind.__attrs_attrs__ if field.init or field.eq]
    if dataclasses.is_dataclass(kind):
        return [getattr(value, field.name) for field in dataclasses.fields(kind) if field.init or field.compare]
    return None
