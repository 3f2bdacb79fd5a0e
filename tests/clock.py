"""The test clock: scripts take the time from a key, so that a test moves it by hand.

The release build replaces nothing: `redisq.broker.scripts.Scripts()` reads the server's own clock.
"""

from __future__ import annotations

from typing import Any

from redisq.broker.scripts import Scripts

__all__ = ["START", "TEST_NOW", "clock_key", "scripts", "set_clock"]

#: In place of `lua/include/now.lua`: the integer in `{prefix}:testclock`, us; the server's clock when the key is absent.
TEST_NOW = """\
--- now: the test clock.
local function now_us()
  local fixed = redis.call('GET', ARGV[1] .. ':testclock')
  if fixed then
    return tonumber(fixed)
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""

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
