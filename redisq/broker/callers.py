"""Who calls: the names and numbers by which a script recognises a repeated call."""

from __future__ import annotations

from redisq.broker.forks import after_fork
from redisq.message import new_id

__all__ = ["Caller", "Callers"]


class Caller:
    """One name with a rising number. It has at most one unanswered call."""

    __slots__ = ("name", "number")

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0


class Callers:
    """The callers of one connector: taken for a call, given back when it was answered.

    A caller whose call was never answered is not given back: its late effect can then not be taken for another call's.
    A forked child starts anew, so that it never speaks under its parent's names.
    """

    def __init__(self) -> None:
        self._free: list[Caller] = []
        after_fork(self._forget)

    def _forget(self) -> None:
        self._free = []

    def take(self) -> Caller:
        """Return a caller with a fresh number."""
        try:
            caller = self._free.pop()
        except IndexError:
            caller = Caller(new_id())
        caller.number += 1
        return caller

    def give_back(self, caller: Caller) -> None:
        """Its call was answered."""
        self._free.append(caller)
