"""The leak check: after each test, each key has a time to live or is on the permanent list (I25)."""

from __future__ import annotations

from typing import Any

from redisq.broker.keys import FIXED

_PERMANENT = tuple(f":{key.suffix}" for key in FIXED if key.name != "never")


def check_leaks(client: Any) -> None:
    """Fail when a key is neither fixed nor going to expire. `client` is a sync client of any kind."""
    leaked = [
        key.decode()
        for key in client.scan_iter()
        if not key.decode().endswith(_PERMANENT) and client.ttl(key) < 0 and not key.startswith(b"foreign:")
    ]
    assert not leaked, f"keys that nobody will ever delete: {leaked}"
