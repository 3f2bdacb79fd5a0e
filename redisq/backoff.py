"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Backoff", "jitter_of"]


def jitter_of(share: float | None) -> Callable[[], float]:
    """Return what gives each jitter its share, in [0, 1): this one always, or a random one each time for None."""
    return random.random if share is None else lambda: share


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling delays with jitter, up to a cap.

    The jitter takes away up to half ("equal jitter" of Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015): a wave of failures spreads out, and no retry comes at once.

    Attributes:
        first: Seconds before the second try, less its jitter.
        cap: No delay is longer than this, in seconds.
    """

    first: float = 5.0
    cap: float = 600.0

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after so many failures (from 1). `random` gives numbers in [0, 1)."""
        # 2**30 of any useful first delay is beyond any cap: the exponent is bounded so that the power stays small.
        full = min(self.cap, self.first * 2.0 ** min(failures - 1, 30))
        return full * (1 - random() / 2)
