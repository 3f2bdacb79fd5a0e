"""The leak check: after each test, each key has a time to live or is on the permanent list (I25)."""

from __future__ import annotations

from functools import partial

from redisq.testing import leaks

#: Keys that begin with `foreign:` stand for those of other programs.
check_leaks = partial(leaks.check_leaks, ignore=("foreign:",))
