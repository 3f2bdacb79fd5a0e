"""Loads the Lua scripts and expands their includes.

`--- @include name` in a script stands for `lua/include/name.lua`, once, where it first appears.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
        self._replaced = dict(includes or {})
        self._scripts = {name: self._load(name) for name in SCRIPT_NAMES}

    def __getitem__(self, name: str) -> Script:
        return self._scripts[name]

    def _load(self, name: str) -> Script:
        source = self._expand(_read(f"{name}.lua"), (name,), set())
        return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())

    def _expand(self, source: str, path: tuple[str, ...], done: set[str]) -> str:
        def insert(match: re.Match[str]) -> str:
            name = match[1]
            if name in path:
                raise ValueError(f"circle of includes: {' > '.join((*path, name))}")
            if name in done:
                return ""
            text = self._replaced.get(name) or _read(f"include/{name}.lua")
            expanded = self._expand(text, (*path, name), done)
            done.add(name)
            return expanded

        return _INCLUDE.sub(insert, source)


def _read(path: str) -> str:
    return files("redisq.broker").joinpath("lua", path).read_text(encoding="utf-8")
