from __future__ import annotations

import re

import pytest

from redisq.broker.keys import FIXED, QueueKeys
from redisq.errors import ConfigError


def test_every_key_of_a_queue_begins_with_its_name() -> None:
    keys = QueueKeys("chat_api")
    assert keys.prefix == "chat_api"
    assert keys.fixed[:5] == (
        "chat_api:queue:main",
        "chat_api:queue:delayed",
        "chat_api:queue:retry",
        "chat_api:queue:processing",
        "chat_api:queue:dlq",
    )
    assert keys.named("stats") == "chat_api:stats"
    assert keys.wake == keys.named("wake") == "chat_api:wake"
    assert keys.call("c1") == "chat_api:call:c1"


def test_a_namespace_stands_before_the_queue() -> None:
    keys = QueueKeys("chat_api", "staging")
    assert keys.prefix == "staging:chat_api"
    assert all(key.startswith("staging:chat_api:") for key in (*keys.fixed, keys.wake, keys.call("c")))


@pytest.mark.parametrize(("queue", "namespace"), [("", ""), ("a:b", ""), ("a b", ""), ("a", "b:c"), ("ü", ""), ("a{b}", "")])
def test_a_name_that_could_be_taken_for_anothers_keys_is_refused(queue: str, namespace: str) -> None:
    with pytest.raises(ConfigError):
        QueueKeys(queue, namespace)


def test_keys_of_one_queue_are_equal_and_can_be_looked_up_by() -> None:
    assert {QueueKeys("a"): 1}[QueueKeys("a")] == 1
    assert QueueKeys("a") != QueueKeys("a", "b")


def test_every_fixed_key_has_its_own_name_and_says_what_is_in_it() -> None:
    assert len({key.name for key in FIXED}) == len({key.suffix for key in FIXED}) == len(FIXED)
    assert all(re.fullmatch(r"[a-z]+(:[a-z]+)?", key.suffix) and key.content for key in FIXED)
