"""Calls are packed as redis-py packs them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from redis.connection import Connection

from redisq.broker.keys import ExchangeKeys, QueueKeys
from redisq.broker.protocol import packed, prepare

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ARGUMENTS = st.lists(st.one_of(st.binary(), TEXTS, st.integers()), min_size=1)


def by_redis_py(*arguments: str | bytes | int) -> bytes:
    return b"".join(Connection().pack_command(*arguments))


@given(st.lists(ARGUMENTS, max_size=3))
def test_calls_are_written_as_redis_py_writes_them(calls: list[list[str | bytes | int]]) -> None:
    assert packed([("SET", *call) for call in calls]) == b"".join(by_redis_py("SET", *call) for call in calls)


@given(before=ARGUMENTS, again=ARGUMENTS, after=ARGUMENTS)
def test_prepared_arguments_are_written_as_the_same_ones_unprepared(
    before: list[str | bytes | int], again: list[str | bytes | int], after: list[str | bytes | int]
) -> None:
    assert packed([(*before, prepare(again), *after)]) == packed([(*before, *again, *after)])


def test_long_arguments_and_bytes_that_are_not_utf8_are_written_as_they_are() -> None:
    foreign = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert packed([("GET", foreign)]) == by_redis_py("GET", b"\xff\xfe")
    assert packed([("GET", prepare([foreign]))]) == by_redis_py("GET", b"\xff\xfe")
    assert packed([("SET", "a" * 255, b"b" * 256)]) == by_redis_py("SET", "a" * 255, b"b" * 256)


def test_each_script_gets_the_keys_of_its_queue_and_their_prefix() -> None:
    for keys in (QueueKeys("chat_api", "staging"), ExchangeKeys("news")):
        assert packed([("EVALSHA", "sha", keys.common, "caller")]) == by_redis_py(
            "EVALSHA", "sha", len(keys.fixed), *keys.fixed, keys.prefix, "caller"
        )
