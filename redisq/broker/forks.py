"""What must not be shared with a forked child: names and sockets of its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

__all__ = ["after_fork"]


# Weak, and emptied as objects go: a program may connect a thousand times, and the interpreter never forgets a hook.
_METHODS: set[WeakMethod[Callable[[], Any]]] = set()


def after_fork(method: Callable[[], Any]) -> None:
    """Call the bound method in every child that this process forks from now on, while its object lives.

    Asking for the process's id at each call would do too, and costs a system call each time.
    """
    _METHODS.add(WeakMethod(method, _METHODS.discard))


def _call_all() -> None:
    for reference in list(_METHODS):
        alive = reference()
        if alive is not None:
            alive()


os.register_at_fork(after_in_child=_call_all)
