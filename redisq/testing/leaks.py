"""The leak check: each key has a time to live, or is one that a queue keeps for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redisq.broker.keys import EXCHANGE, FIXED, GATES, GROUP
from redisq.testing.clock import CLOCK_KEY

if TYPE_CHECKING:
    import redis

__all__ = ["check_leaks"]

_PERMANENT = (
    *(f":{key.suffix}" for key in FIXED if key.name != "never"),
    ":limits",
    f":{GROUP[0].suffix}",
    f":{EXCHANGE[0].suffix}",
    "redisq:workers",
)

#: Keys that a queue has only as long as there are messages with lanes or limits; so `needs` names them.
_WITH_NEEDS = tuple(f":{key.suffix}" for key in GATES if key.name not in ("limits", "tat", "pauses"))
_OF_ONE = (":flow:", ":waiting:")


def check_leaks(client: redis.Redis, *, ignore: tuple[str, ...] = ()) -> None:
    """Fail when a key would stay for ever without being one that a queue has, or has while messages are in it.

    Args:
        client: A sync client of the database.
        ignore: What the keys of others begin with.

    Raises:
        AssertionError: There is such a key; names it.
    """
    keys = [key.decode() for key in client.scan_iter()]
    leaked = [key for key in keys if not key.endswith(_PERMANENT) and not key.startswith((CLOCK_KEY, *ignore))]
    leaked = sorted(key for key in leaked if client.ttl(key) == -1 and not _is_of_messages(client, key))
    if leaked:
        raise AssertionError(f"keys that nobody will ever delete: {', '.join(leaked)}")


def _is_of_messages(client: redis.Redis, key: str) -> bool:
    """Whether a key goes with messages that are there."""
    for part in _OF_ONE:
        before, found, _ = key.partition(part)
        if found:
            return bool(client.exists(f"{before}:needs"))
    before, found, _ = key.partition(":dedupe:")
    if found:
        owner: Any = client.get(key)
        return bool(client.hexists(f"{before}:messages", owner.decode().split(" ")[0]))
    if key.endswith(":pauses"):
        return bool(client.zrange(key, -1, -1, withscores=True)[0][1] == float("inf"))
    return key.endswith(_WITH_NEEDS) and bool(client.exists(f"{key.rpartition(':')[0]}:needs"))
