"""A small message must not stop a worker: keys of maps whose hashes a sender can choose are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import pytest

from redisq.codec.envelope import unpack
from redisq.codec.msgpack import decode, decode_value, encode, encode_value
from redisq.errors import DecodeError, EncodeError
from redisq.message import Message

#: All these have one hash: a UUID's is that of its number, and Python's numbers are hashed modulo 2**61 - 1.
COLLIDING = [UUID(int=1 + number * (2**61 - 1)) for number in range(20_000)]


def _colliding_map() -> dict[Any, int]:
    return {msgpack.ExtType(6, key.bytes): 1 for key in COLLIDING}


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (lambda found: [1, "answer", [found], None], decode),
        (lambda found: [1, "answer", [[{"deep": [found]}]], None], decode),
        (lambda found: {"answer": found}, decode_value),
        (lambda found: {"properties": {}, "body": found}, lambda raw: unpack(raw, lambda text: text)),
    ],
)
def test_a_map_whose_keys_collide_is_refused_at_once(wrap: Callable[[Any], Any], read: Callable[[bytes], Any]) -> None:
    raw = msgpack.packb(wrap(_colliding_map()))
    begun = time.process_time()
    with pytest.raises(DecodeError):
        read(raw)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("key", [UUID(int=1), Decimal(1)])
def test_a_key_that_would_be_refused_does_not_leave(key: Any) -> None:
    with pytest.raises(EncodeError, match="argument 1 of type dict: a map has a key of type"):
        encode(Message("answer", (1, {key: 1}), None))
    with pytest.raises(EncodeError, match="a map has a key of type"):
        encode_value({"a": {key: 1}})


def test_plain_keys_travel_beside_values_of_other_types() -> None:
    value = {"text": UUID(int=1), 5: Decimal("1.5"), b"bytes": 1, None: 2, 1.5: 3}
    assert decode_value(encode_value(value)) == value
