"""What a forked child must not share with its parent: names, sockets and locks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import redis

__all__ = ["after_fork", "reopened"]


# Weak, and emptied as objects go: a program may connect a thousand times, and the interpreter never forgets a hook.
_METHODS: WeakKeyDictionary[Any, list[Callable[[Any], Any]]] = WeakKeyDictionary()


def after_fork(method: Callable[[], Any]) -> None:
    """Call the bound method in every child that this process forks from now on, while its object lives.

    Asking for the process's id at each call would do too, and costs a system call each time.
    """
    _METHODS.setdefault(method.__self__, []).append(method.__func__)  # type: ignore[attr-defined]


def reopened(client: redis.Redis) -> redis.Redis:
    """Return a client like this one, for a forked child: without a connection, and with locks of its own.

    The child has the locks of the parent's pool as they were. Where another thread held one, nobody in the child ever
    releases it: redis-py's own look at the process id waits for it, too.
    """
    pool = client.connection_pool
    # The garbage collector would close the inherited client, and wait for the same locks.
    client.auto_close_connection_pool = False
    return redis.Redis.from_pool(
        redis.ConnectionPool(connection_class=pool.connection_class, max_connections=pool.max_connections, **pool.connection_kwargs)
    )


def _call_all() -> None:
    for owner, methods in list(_METHODS.items()):
        for method in methods:
            method(owner)


os.register_at_fork(after_in_child=_call_all)
