"""The leak check: each key has a time to live, or is one that a queue keeps for good."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from redisq.broker.keys import FIXED, GATES
from redisq.testing.clock import CLOCK_KEY

if TYPE_CHECKING:
    import redis

__all__ = ["check_leaks"]

#: What an operator says of limits stays until he says otherwise.
_SAID = ("limits", "pauses")
_PERMANENT = (*(f":{key.suffix}" for key in FIXED if key.name != "never"), *(f":{name}" for name in _SAID), "redisq:workers")
#: What a queue has as long as there are messages in it.
_WITH_MESSAGES = re.compile(
    rf"(.+?):(?:{'|'.join(key.suffix for key in GATES if key.name not in _SAID)}|(?:flow|waiting|dedupe):.+)"
)


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
    queues = {key.removesuffix(":messages") for key in keys if key.endswith(":messages")}
    leaked = [key for key in leaked if not ((match := _WITH_MESSAGES.fullmatch(key)) and match[1] in queues)]
    leaked = sorted(key for key in leaked if client.ttl(key) == -1)
    if leaked:
        raise AssertionError(f"keys that nobody will ever delete: {', '.join(leaked)}")
