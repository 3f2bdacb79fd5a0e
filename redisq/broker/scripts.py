"""Loads the Lua scripts and expands their includes.

`--- @include name` in a script stands for `lua/include/name.lua`, once, where it first appears.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["EXCHANGE_SCRIPTS", "QUEUE_SCRIPTS", "SCRIPT_NAMES", "Script", "Scripts"]

#: Those that work on the fixed keys of a queue, and those on the keys of an exchange of the kombu transport.
QUEUE_SCRIPTS = (
    "browse", "cancel", "claim", "declare", "delete", "enqueue", "extend", "find", "inspect", "join", "kick", "look", "outcome",
    "pause", "pause_gate", "remove", "repair", "replay", "restore", "seek", "set_limit", "settle", "wake",
)  # fmt: skip
EXCHANGE_SCRIPTS = ("bind", "broadcast", "routes", "unbind")
SCRIPT_NAMES = (*QUEUE_SCRIPTS, *EXCHANGE_SCRIPTS)

_INCLUDE = re.compile(r"^--- @include (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script as it is sent: its source with all includes, and the sha1 that names it on the server."""

    name: str
    source: str
    sha: str


class Scripts:
    """The scripts, by name.

    Args:
        includes: Sources to use in place of `lua/include/<name>.lua`. Tests replace `now`, to move the time by hand.
    """

    def __init__(self, includes: Mapping[str, str] | None = None) -> None:
        self._scripts = _load_all(tuple((includes or {}).items()))

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]


@cache
def _load_all(replaced: tuple[tuple[str, str], ...]) -> Mapping[str, Script]:
    """Load them, once in a program: each connection of kombu asks. So a program keeps its scripts while redisq is upgraded."""
    return {name: _load(name, dict(replaced)) for name in SCRIPT_NAMES}


def _load(name: str, replaced: Mapping[str, str]) -> Script:
    source = _expand(_read(f"{name}.lua"), replaced, (name,), set())
    return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def _expand(source: str, replaced: Mapping[str, str], path: tuple[str, ...], done: set[str]) -> str:
    def insert(match: re.Match[str]) -> str:
        name = match[1]
        if name in path:
            raise ValueError(f"circle of includes: {' > '.join((*path, name))}")
        if name in done:
            return ""
        text = replaced.get(name) or _read(f"include/{name}.lua")
        expanded = _expand(text, replaced, (*path, name), done)
        done.add(name)
        return expanded

    return _INCLUDE.sub(insert, source)


def _read(path: str) -> str:
    return files("redisq.broker").joinpath("lua", path).read_text(encoding="utf-8")
