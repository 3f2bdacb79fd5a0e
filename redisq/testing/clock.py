"""The test clock: scripts take the time from a key, so that a test moves it by hand.

The release build replaces nothing: `redisq.broker.scripts.Scripts()` reads the server's own clock.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from redisq.broker.scripts import Scripts
from redisq.errors import ConfigError
from redisq.types import Seconds, microseconds

if TYPE_CHECKING:
    import redis

__all__ = ["CLOCK_KEY", "Clock", "as_time", "now_include"]

#: Holds the time of all queues of a sandbox, us.
CLOCK_KEY = "redisq:testclock"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_include(key: str) -> str:
    """What stands in place of `lua/include/now.lua`.

    Args:
        key: A Lua expression: the key that holds the time, us. The server's clock counts while there is no such key.
    """
    return f"""\
--- now: the test clock.
local function now_us()
  local fixed = redis.call('GET', {key})
  if fixed then
    return tonumber(fixed)
  end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""


class Clock:
    """The time of a sandbox. It stands still until it is moved, and only forward; it begins at the present time.

    It is the clock of the queues: of `countdown`, `eta`, `expires`, retries and leases. `datetime.now()` does not follow
    it, nor does the time that results are kept (`result_ttl`).

    Args:
        client: A client of the database whose time it is.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._lock = threading.RLock()
        self.us = time.time_ns() // 1000
        self.move_to(self.us)

    @staticmethod
    @cache
    def scripts() -> Scripts:
        """Return all scripts, on this clock. They are read once: suites open a sandbox for each test."""
        return Scripts(includes={"now": now_include(f"'{CLOCK_KEY}'")})

    def now(self) -> datetime:
        """Return the time."""
        return as_time(self.us)

    def advance(self, duration: Seconds) -> None:
        """Move it forward by so many seconds, or a `timedelta`.

        Raises:
            ConfigError: The duration is negative.
        """
        with self._lock:
            self.move_to(self.us + microseconds(duration, "advance"))

    def move_to(self, us: int) -> None:
        """Move it forward to that time, in microseconds since the epoch.

        Raises:
            ConfigError: It is past already.
        """
        with self._lock:
            if us < self.us:
                raise ConfigError(f"the clock shows {self.now()} and only moves forward, not to {as_time(us)}")
            self.us = us
            self._client.set(CLOCK_KEY, us)


def as_time(us: int) -> datetime:
    """Return a time of the queues as a `datetime`."""
    return _EPOCH + timedelta(microseconds=us)
