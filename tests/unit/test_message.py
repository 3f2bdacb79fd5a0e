from __future__ import annotations

import re

import pytest

from redisq.message import PLAIN, Meta, head_start_of, new_id, new_ids, parse_meta, with_head_start
from redisq.types import check_name


def test_ids_are_sixteen_letters_and_digits() -> None:
    ids = [new_id(), *new_ids(1000)]
    assert len(set(ids)) == 1001
    assert all(re.fullmatch("[A-Za-z0-9]{16}", each) and check_name("id", each) for each in ids)


def test_no_ids_are_asked_for_and_none_given() -> None:
    assert new_ids(0) == []


@pytest.mark.parametrize(
    ("head_start", "told"),
    [(0, ""), (540_000_000, "p540"), (-540_000_000, "m540"), (1, "p1u"), (-1_500_000, "m1500000u"), (2**53 - 1, f"p{2**53 - 1}u")],
)
def test_an_id_tells_the_head_start_of_its_message(head_start: int, told: str) -> None:
    plain = new_id()
    told_id = with_head_start(plain, head_start)
    assert told_id == check_name("id", plain + told)
    assert head_start_of(told_id) == head_start


@pytest.mark.parametrize(
    "id", ["", "p540", "a" * 15 + "p540", "a" * 17 + "p540", "a" * 16 + "p", "a" * 16 + "p5x", "a" * 15 + "-p5"]
)
def test_other_ids_tell_none(id: str) -> None:
    assert head_start_of(id) == 0


@pytest.mark.parametrize(
    ("raw", "meta"),
    [
        (b"", PLAIN),
        (b"attempt=2", Meta(attempt=2)),
        (b"attempt=3 crashes=1 parks=4 score=12 reason=failed text=ValueError: no", Meta(3, 1, 4, "failed", "ValueError: no")),
        (b"score=12", PLAIN),
        (b"reason=failed text=", Meta(reason="failed")),
        (b"reason=failed text=a text=b reason=c\nd", Meta(reason="failed", text="a text=b reason=c\nd")),
        (b"text=\xff\xc3\xbc", Meta(text="\ufffdü")),
        (b"text=no\x1fa.py:1 in f\nb.py:2 in g", Meta(text="no", stack="a.py:1 in f\nb.py:2 in g")),
        (b"later=1 attempt=2 unknown", Meta(attempt=2)),
        (b"attempt=x crashes=-1 parks=", PLAIN),
        (b"hello", PLAIN),
    ],
)
def test_a_meta_record_reads(raw: bytes, meta: Meta) -> None:
    assert parse_meta(raw) == meta
