from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.backoff import Backoff


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (9, 600), (10_000, 600)])
def test_each_failure_doubles_the_delay_up_to_the_cap(failures: int, seconds: float) -> None:
    assert Backoff(first=5, cap=600).delay(failures, lambda: 0.0) == seconds


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 10), (0.5, 7.5), (0.999, 5.005)])
def test_jitter_takes_away_up_to_half(random: float, seconds: float) -> None:
    assert Backoff(first=10, cap=600).delay(1, lambda: random) == pytest.approx(seconds)


def test_a_first_delay_beyond_the_cap_is_the_cap() -> None:
    assert Backoff(first=100, cap=10).delay(1, lambda: 0.0) == 10


@given(
    st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(1, 10**9), st.floats(0, 1, exclude_max=True)
)  # fmt: skip
def test_no_delay_is_zero_or_beyond_the_cap(first: float, cap: float, failures: int, random: float) -> None:
    assert 0 < Backoff(first, cap).delay(failures, lambda: random) <= cap
