"""The test clock of one queue: `redisq.testing.clock`, with the time in a key under the queue's own prefix.

So it holds on a real server too, where many tests and, on a Cluster, many slots are.
"""

from __future__ import annotations

from typing import Any

from redisq.broker.scripts import Scripts
from redisq.testing.clock import now_include

__all__ = ["START", "TEST_NOW", "clock_key", "scripts", "set_clock"]

#: In place of `lua/include/now.lua`: the integer in `{prefix}:testclock`, us; the server's clock when the key is absent.
TEST_NOW = now_include("ARGV[1] .. ':testclock'")

#: A time to begin at, us: 2100-01-01. In the future of the real clock, which call ledgers still expire by.
START = 4_102_444_800_000_000


def clock_key(prefix: str) -> str:
    """The key that holds the time of the queue with that prefix."""
    return f"{prefix}:testclock"


def scripts() -> Scripts:
    """All scripts, on the test clock."""
    return Scripts(includes={"now": TEST_NOW})


def set_clock(client: Any, prefix: str, us: int) -> None:
    """Set the time of a queue. The key goes away by itself, as all keys do that no script owns."""
    client.set(clock_key(prefix), us, ex=600)
