from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.errors import ConfigError
from redisq.types import MAX_MICROSECONDS, check_name, microseconds


@pytest.mark.parametrize("name", ["a", "chat_api", "Bot.answer-2@v1", "x" * 128, "0"])
def test_a_good_name_is_given_back(name: str) -> None:
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a:b", "a b", "a\n", "\na", "a/b", "ü", "a\0", "{a}", "a*"])
def test_a_bad_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_name("queue", name)
    assert str(refused.value).startswith(f"queue {name!r}: ")


@pytest.mark.parametrize(
    ("duration", "us"),
    [
        (0, 0), (1, 1_000_000), (0.5, 500_000), (1e-7, 0), (0.0000015, 2), (-0.0, 0), (timedelta(0), 0),
        (timedelta(minutes=1, microseconds=1), 60_000_001), (timedelta.resolution, 1), (9_000_000_000, 9_000_000_000_000_000),
    ],
)  # fmt: skip
def test_a_duration_is_whole_microseconds(duration: Any, us: int) -> None:
    got = microseconds(duration, "countdown")
    assert (got, type(got)) == (us, int)


@pytest.mark.parametrize(
    "duration",
    [
        -1, -1e-9, math.nan, math.inf, -math.inf, 1e300, 10_000_000_000, True, False, "1", None, b"1", 1j, [1],
        timedelta(microseconds=-1), timedelta.max,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_and_named(duration: Any) -> None:
    with pytest.raises(ConfigError, match=r"^countdown="):
        microseconds(duration, "countdown")


@given(st.timedeltas(timedelta(0), timedelta(days=36500)))
def test_a_timedelta_is_exact(duration: timedelta) -> None:
    assert microseconds(duration, "eta") == duration // timedelta(microseconds=1)


@given(st.floats() | st.integers() | st.timedeltas())
def test_a_duration_fits_or_is_refused(duration: Any) -> None:
    try:
        us = microseconds(duration, "eta")
    except ConfigError:
        return
    assert 0 <= us <= MAX_MICROSECONDS
