"""The leak check: each key has a time to live, or is one that a queue keeps for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redisq.broker.keys import EXCHANGE, FIXED
from redisq.testing.clock import CLOCK_KEY

if TYPE_CHECKING:
    import redis

__all__ = ["check_leaks"]

_PERMANENT = (*(f":{key.suffix}" for key in FIXED if key.name != "never"), f":{EXCHANGE[0].suffix}", "redisq:workers")


def check_leaks(client: redis.Redis, *, ignore: tuple[str, ...] = ()) -> None:
    """Fail when a key would stay for ever without being one that a queue has.

    Args:
        client: A sync client of the database.
        ignore: What the keys of others begin with.

    Raises:
        AssertionError: There is such a key; names it.
    """
    keys = [key.decode() for key in client.scan_iter()]
    leaked = [key for key in keys if not key.endswith(_PERMANENT) and not key.startswith((CLOCK_KEY, *ignore))]
    leaked = sorted(key for key in leaked if client.ttl(key) == -1)
    if leaked:
        raise AssertionError(f"keys that nobody will ever delete: {', '.join(leaked)}")
