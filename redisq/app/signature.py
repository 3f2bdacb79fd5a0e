"""Check a call's arguments against the handler's signature, where the call is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redisq.app.spelling import OPTIONS_OF_A_CALL, closest
from redisq.errors import ArgumentsError, ConfigError

__all__ = ["Parameters", "is_of_wrapped", "signature_of"]

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signature_of(handler: Callable[..., Any], *, bind: bool) -> inspect.Signature:
    """Return what callers give: with `bind`, all but the first parameter.

    Raises:
        ConfigError: Python does not know its parameters. Or with `bind`, there is no first one that is given by its place.
    """
    try:
        signature = inspect.signature(handler)
    except ValueError as error:
        raise ConfigError(f"{error}: call it in a function of your own, and decorate that") from None
    if not bind:
        return signature
    parameters = [*signature.parameters.values()]
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise ConfigError("bind=True: want a handler whose first parameter is the context")
    return signature.replace(parameters=parameters[1:])


def is_of_wrapped(function: Any) -> bool:
    """Return True when Python shows the decorated function's parameters in place of the decorator's own (`functools.wraps`)."""
    return hasattr(function, "__wrapped__") and not hasattr(function, "__signature__")


class _Default:
    """Stands for a default."""

    def __repr__(self) -> str:
        return "..."


class Parameters:
    """The parameters of one handler, as callers give them.

    Args:
        signature: Of the handler.
        of_wrapped: It is that of the function inside a decorator, which may give some of them itself.
    """

    def __init__(self, signature: inspect.Signature, *, of_wrapped: bool = False) -> None:
        self._signature = signature
        self._of_wrapped = of_wrapped
        parameters = signature.parameters.values()
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        self._least = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
        self._most = len(positional)
        #: Names in the order in which they may be given by position; empty when some may be given by position alone.
        self._names: tuple[str, ...] = ()
        if not any(parameter.kind is inspect.Parameter.POSITIONAL_ONLY for parameter in positional):
            self._names = tuple(parameter.name for parameter in positional)
        only_named = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
        self._only_named = frozenset(parameter.name for parameter in only_named)
        self._needed = frozenset(parameter.name for parameter in only_named if parameter.default is inspect.Parameter.empty)
        #: So many arguments fit when all are given by position, as in most calls; none when some have to be named. With
        #: `*args` more fit, which binding finds out.
        self.counts = range(0) if self._needed else range(self._least, self._most + 1)
        #: For each number of arguments given by position: which names must be given, and which may be.
        self._by_name = [
            (self._needed.union(self._names[count : self._least]), self._only_named.union(self._names[count:]))
            for count in range(self._most + 1 if self._names or not self._most else 0)
        ]

    def check(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Accept arguments that the handler can be called with.

        Raises:
            ArgumentsError: It cannot.
        """
        # Binding costs ten times as much as the rest of the call.
        count = len(args)
        if not kwargs and count in self.counts:
            return
        if count < len(self._by_name):
            needed, possible = self._by_name[count]
            if needed <= kwargs.keys() <= possible:
                return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(f"task {task}{self._shown()}: {error}{self._hint(task, args, kwargs)}") from None

    def _shown(self) -> str:
        """The parameters, for an error. Not what their defaults are: that may be a secret, or long, or have no text."""
        parameters = self._signature.parameters.values()
        shown = [each if each.default is each.empty else each.replace(default=_Default()) for each in parameters]
        return str(self._signature.replace(parameters=shown))

    def _hint(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Say what was meant by a name that is no parameter, or who may have to give one that is missing."""
        names = [name for name, parameter in self._signature.parameters.items() if parameter.kind in _BY_NAME]
        for name in kwargs:
            if name in names:
                continue
            if name in OPTIONS_OF_A_CALL:
                return f"; it is an option of the call: {task}.options({name}=...).delay(...)"
            if meant := closest(name, names):
                return f"; did you mean {meant}=?"
        return _GIVEN_BY_DECORATOR if self._of_wrapped and self._is_short(args, kwargs) else ""

    def _is_short(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Return True when the given arguments fit and others are missing."""
        try:
            self._signature.bind_partial(*args, **kwargs)
        except TypeError:
            return False
        return True


_GIVEN_BY_DECORATOR = "; if a decorator passes it, give the parameter a default, or set __signature__ on the decorator's wrapper"
