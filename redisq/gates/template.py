"""Names made of a call's arguments: `"{chat_id}"`, `"{message.chat.id}"`, `"{payload[chat]}"`, or a function.

Compiled once, where the task is decorated, so that a call pays for a look-up and not for parsing.

A template's fields look like those of `str.format`, and do less: the name of a parameter, then attributes and items. No
format specs and no conversions, which would run code of the value's class; no names that begin with `_`, which would
reach into its inside. `.name` on a mapping takes its item, since a dataclass may arrive as one.

A function names, as its own parameters, the arguments that it wants.

None, anywhere on the way, and empty text mean that there is no such thing: no lane, or a limit that this call is not
counted in (`"group:{group_id}:20/m"` in a private chat).
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from string import Formatter
from typing import Any

from redisq.errors import ArgumentsError, ConfigError

__all__ = ["MAX_NAME_BYTES", "Get", "compile_argument", "compile_name", "encode_name", "gate_name", "lane_gate", "shorten"]

#: Takes positional and named arguments of a call.
Get = Callable[[Sequence[Any], Mapping[str, Any]], Any]
#: The same, to the name as Redis has it; None: there is none.
Name = Callable[[Sequence[Any], Mapping[str, Any]], str | None]

#: A longer name is replaced by its hash.
MAX_NAME_BYTES = 128

_SAFE = re.compile(r"[A-Za-z0-9_.@-]{1,128}").fullmatch
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.@-]")
_FIELD = re.compile(r"([A-Za-z_]\w*)((?:\.\w+|\[[^\[\]]+\])*)")
_STEP = re.compile(r"\.(\w+)|\[([^\[\]]+)\]")

# What a class has that says nothing of its instances but an address, another in each process.
_NO_TEXT: set[object] = {object.__str__, object.__repr__}

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_ANY_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_ANY_KEYWORD = inspect.Parameter.VAR_KEYWORD


def compile_name(source: str | Callable[..., Any], signature: inspect.Signature, where: str) -> Name:
    """Return what makes a name of a call's arguments.

    Args:
        source: A template, or a function of some of the arguments.
        signature: The handler's.
        where: How errors begin, e.g. `task greet: key='{chat_id}'`.

    Raises:
        ConfigError: The template cannot be read, or asks for what the handler has no parameter for.
            What is returned raises `ArgumentsError` for a call whose arguments give no name.
    """
    if callable(source):
        return _named(_guarded(_call(source, signature, where), where), where)
    if not isinstance(source, str):
        raise ConfigError(f"{where}: want a template such as '{{chat_id}}', or a function of the task's arguments")
    try:
        parts = list(Formatter().parse(source))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; write '{{chat_id}}', and '{{{{' for a brace") from None
    gets: list[str | Get] = []
    for literal, field, spec, conversion in parts:
        if literal:
            gets.append(literal)
        if field is None:
            continue
        if spec or conversion:
            raise ConfigError(f"{where}: {{{field}}} has a format or a conversion; write the field alone, or give a function")
        gets.append(_field(field, signature, where))
    if not gets:
        raise ConfigError(f"{where}: it is empty; leave it out, or write '{{chat_id}}'")
    if len(gets) == 1 and not isinstance(gets[0], str):
        return _named(gets[0], where)
    if all(isinstance(part, str) for part in gets):
        constant = encode_name("".join(part for part in gets if isinstance(part, str)))
        return lambda _args, _kwargs: constant
    return _joined(gets, where)


def compile_argument(source: str | Callable[..., Any], signature: inspect.Signature, where: str) -> Get:
    """Return what takes a value, as it is, out of a call's arguments: the field's (`n_tokens`, `usage.total`), or a function's.

    Raises:
        ConfigError: The handler has no such parameter.
    """
    if callable(source):
        return _guarded(_call(source, signature, where), where)
    return _field(source, signature, where)


def encode_name(text: str) -> str:
    """Return a text as names in Redis have it.

    Other bytes than letters, digits and `_ . @ -` become `%XX` of their UTF-8; what is longer than 128 then, a hash.
    """
    if _SAFE(text):
        return text
    return shorten(_UNSAFE.sub(lambda byte: b"%%%02X" % byte[0][0], text.encode("utf-8", "surrogatepass")).decode())


def gate_name(text: str) -> str:
    """Return a limit's name as people write it, `bot` or `chat:42`, as gates are named."""
    name, colon, instance = text.partition(":")
    return encode_name(name) + colon + (encode_name(instance) if instance else "")


def lane_gate(key: Any, where: str) -> str:
    """Return what a lane is called among gates, of the key of one of its calls.

    Raises:
        ArgumentsError: The key has no text.
        ConfigError: It is empty.
    """
    text = _text(key, where)
    if not text:
        raise ConfigError(f"{where}: it is empty; want the key of a lane, such as 42")
    return "@" + encode_name(text)


def shorten(name: str) -> str:
    """Return a name of more than 128 bytes as `#` and half its sha256: 128 bits, so two names never meet."""
    return name if len(name) <= MAX_NAME_BYTES else "#" + hashlib.sha256(name.encode()).hexdigest()[:32]


def _text(value: Any, where: str) -> str:
    """A value as the text of a name: 42 and "42" are one."""
    if isinstance(value, Enum):
        value = value.value  # it travels as its value, and who sends by name sends that
    kind = type(value)
    if callable(value) or {kind.__str__, kind.__repr__} == _NO_TEXT:
        raise ArgumentsError(f"{where}: a {kind.__name__} has no text of its own; take a field of it that tells it from others")
    return str(value)


def _named(get: Get, where: str) -> Name:
    def name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        value = get(args, kwargs)
        if value is None:
            return None
        text = value if type(value) is str else str(value) if type(value) is int else _text(value, where)
        return text if _SAFE(text) else encode_name(text) if text else None

    return name


def _joined(parts: list[str | Get], where: str) -> Name:
    def name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part(args, kwargs)
            if value is None or not (text := _text(value, where)):
                return None
            texts.append(text)
        return encode_name("".join(texts))

    return name


def _field(field: str, signature: inspect.Signature, where: str) -> Get:
    match = _FIELD.fullmatch(field)
    if not match:
        raise ConfigError(
            f"{where}: {{{field}}} is no field; write a parameter's name, then .attributes or [items]: {{message.chat.id}}"
        )
    get = _parameter(match[1], signature, where)
    for attribute, item in _STEP.findall(match[2]):
        if attribute.startswith("_"):
            raise ConfigError(
                f"{where}: {{{field}}}: {attribute} is private to its class; take a public attribute, or give a function"
            )
        get = _attribute(get, attribute) if attribute else _item(get, int(item) if item.isdigit() else item)
    return _guarded(get, where) if match[2] else get


def _parameter(name: str, signature: inspect.Signature, where: str) -> Get:
    """Look an argument up without binding the call, which would cost more than all the rest."""
    for at, parameter in enumerate(signature.parameters.values()):
        if parameter.name != name:
            continue
        default = parameter.default
        if default is inspect.Parameter.empty:
            default = None  # the call was checked against the signature before: what has no default is there
        if parameter.kind is _ANY_POSITIONAL:
            return lambda args, _kwargs: tuple(args[at:])
        if parameter.kind is _ANY_KEYWORD:
            named = {other.name for other in signature.parameters.values() if other.kind is not _POSITIONAL_ONLY}
            return lambda _args, kwargs: {key: value for key, value in kwargs.items() if key not in named}
        if parameter.kind is _POSITIONAL_ONLY:
            return lambda args, _kwargs: args[at] if len(args) > at else default
        if parameter.kind is _KEYWORD_ONLY:
            return lambda _args, kwargs: kwargs.get(name, default)
        return lambda args, kwargs: args[at] if len(args) > at else kwargs.get(name, default)
    if any(parameter.kind is _ANY_KEYWORD for parameter in signature.parameters.values()):
        return lambda _args, kwargs: kwargs.get(name)
    raise ConfigError(f"{where}: the task has no parameter {name!r}; it has {', '.join(signature.parameters) or 'none'}")


def _attribute(get: Get, name: str) -> Get:
    def attribute(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = get(args, kwargs)
        if value is None:
            return None
        return value[name] if isinstance(value, Mapping) else getattr(value, name)

    return attribute


def _item(get: Get, key: int | str) -> Get:
    def item(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value = get(args, kwargs)
        return None if value is None else value[key]

    return item


def _call(function: Callable[..., Any], signature: inspect.Signature, where: str) -> Get:
    try:
        wanted = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C: it says nothing of its parameters
        return lambda args, kwargs: function(*args, **kwargs)
    if any(parameter.kind in (_ANY_POSITIONAL, _ANY_KEYWORD) for parameter in wanted):
        return lambda args, kwargs: function(*args, **kwargs)
    positional: list[Get] = []
    named: list[tuple[str, Get]] = []
    for parameter in wanted:
        if parameter.name not in signature.parameters and parameter.default is not inspect.Parameter.empty:
            continue
        get = _parameter(parameter.name, signature, f"{where}: the function's parameters are named as the task's")
        if parameter.kind is _POSITIONAL_ONLY:
            positional.append(get)
        else:
            named.append((parameter.name, get))
    return lambda args, kwargs: function(
        *[get(args, kwargs) for get in positional], **{name: get(args, kwargs) for name, get in named}
    )


def _guarded(get: Get, where: str) -> Get:
    """The same, whose errors say which task and what it was for."""

    def guarded(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            return get(args, kwargs)
        except Exception as error:
            raise ArgumentsError(f"{where}: {type(error).__name__}: {error}; the call was not sent") from error

    return guarded
