"""What must not be shared with a forked child: names and sockets of its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

__all__ = ["after_fork"]


def after_fork(method: Callable[[], Any]) -> None:
    """Call the bound method in every child that this process forks from now on, while its object lives.

    Asking for the process's id at each call would do too, and costs a system call each time.
    """
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call)
