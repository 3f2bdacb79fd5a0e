"""The fake chat platform refuses what a real one would, and the schedule is one that it accepts."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.gates.limit import parse_limit
from tests.integration.chat_platform import MICROSECONDS, ChatPlatform, Rule, Rules, running
from tests.integration.schedule import Arrival, achievable, lower_bound

WIDE = Rule(1_000_000, MICROSECONDS, 1_000_000)
SECOND = MICROSECONDS


def platform(bot: Rule = WIDE, chat: Rule = WIDE, group: Rule = WIDE, **options: Any) -> ChatPlatform:
    return ChatPlatform(Rules(bot, chat, group), **{"slack": 0, "penalty": 0, **options})


def test_a_chat_takes_one_message_a_second_whatever_other_chats_get() -> None:
    chats = platform(chat=Rule(1, SECOND))
    assert chats.receive(1, "a", SECOND) == 0
    assert chats.receive(2, "b", SECOND) == 0
    assert chats.receive(1, "c", 2 * SECOND - 1) == 1
    assert chats.receive(1, "d", 2 * SECOND) == 0
    assert chats.floods == {"chat:1": 1}
    assert [sent.text for sent in chats.accepted] == ["a", "b", "d"]


def test_a_burst_comes_at_once_and_then_at_the_rate() -> None:
    chats = platform(bot=Rule(30, SECOND, 3))
    assert [chats.receive(chat, "", SECOND) for chat in range(4)] == [0, 0, 0, SECOND // 30]


def test_the_groups_limit_is_for_groups_only() -> None:
    chats = platform(group=Rule(20, 60 * SECOND))
    assert not any(chats.receive(1, "", SECOND) for _ in range(50))
    assert not chats.receive(-1, "", SECOND)
    assert chats.receive(-1, "", SECOND) == 3 * SECOND


def test_a_refused_message_counts_for_no_limit() -> None:
    chats = platform(bot=Rule(1, SECOND, 2), chat=Rule(1, 10 * SECOND))
    chats.receive(1, "", SECOND)
    assert chats.receive(1, "", SECOND) > 0
    assert chats.receive(2, "", SECOND) == 0


def test_what_comes_early_within_the_slack_is_accepted_and_not_saved_up() -> None:
    chats = platform(chat=Rule(1, SECOND), slack=100)
    for step in range(5):
        assert chats.receive(1, "", SECOND + step * SECOND - (100 if step else 0)) == 0
    assert chats.slack_used["chat"] == 100
    assert chats.violations == 0
    chats = platform(chat=Rule(1, SECOND), slack=100)
    assert [bool(chats.receive(1, "", SECOND + step * (SECOND - 100))) for step in range(3)] == [False, False, True]


def test_a_flood_is_paid_for_and_asking_again_too_early_counts() -> None:
    chats = platform(chat=Rule(1, SECOND), penalty=5 * SECOND, grace=10)
    chats.receive(1, "", SECOND)
    assert chats.receive(1, "", SECOND) == 6 * SECOND
    assert chats.receive(1, "", SECOND + 10) == 6 * SECOND - 10  # it was on its way
    assert chats.receive(1, "", 6 * SECOND) == SECOND
    assert chats.receive(2, "", 6 * SECOND) == 0
    assert chats.receive(1, "", 7 * SECOND) == 0
    assert (chats.floods.total(), chats.late_news, chats.ignored, chats.violations) == (1, 1, {"chat:1": 1}, 2)


def test_a_refusal_that_is_made_up_is_no_violation_unless_it_is_ignored() -> None:
    waits = iter([3 * SECOND, 0])
    chats = platform(inject=lambda _chat: next(waits), grace=0)
    assert chats.receive(1, "", SECOND) == 3 * SECOND
    assert (chats.injected, chats.violations) == (1, 0)
    assert chats.receive(1, "", 2 * SECOND) == 2 * SECOND
    assert chats.violations == 1
    assert chats.receive(1, "", 4 * SECOND) == 0


def test_the_rules_as_a_tasks_limits_are_the_same_with_half_the_burst() -> None:
    rules = Rules.scaled(10)
    assert rules.limits() == ["bot:300/1s burst 7", "chat:{chat_id}:10/1s burst 1", "group:{group_id}:200/60s burst 1"]
    for text, rule in zip(rules.limits(), (rules.bot, rules.chat, rules.group), strict=True):
        limit = parse_limit(text, "send")
        assert (limit.count, limit.period, limit.burst) == (rule.count, rule.period, max(1, rule.burst // 2))


def post(url: str, body: bytes) -> tuple[int, Any, str | None]:
    request = urllib.request.Request(f"{url}/send", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer), None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers["Retry-After"]


def test_over_http_it_answers_as_telegram_does() -> None:
    chats = platform(chat=Rule(1, 60 * SECOND), penalty=10 * SECOND)
    message = json.dumps({"chat_id": 7, "text": "hi"}).encode()
    with running(chats) as url:
        assert post(url, message)[:2] == (200, {"ok": True, "result": {"message_id": 1}})
        status, body, retry_after = post(url, message)
        assert status == 429
        assert 69 < body["parameters"]["retry_after"] <= 70
        assert retry_after is not None
        assert float(retry_after) == pytest.approx(body["parameters"]["retry_after"])
        assert post(url, b"{}")[0] == 400
    assert [(sent.chat_id, sent.text) for sent in chats.accepted] == [(7, "hi")]


def test_an_answer_takes_its_time() -> None:
    with running(platform(), latency=0.1) as url:
        start = time.monotonic()
        post(url, b'{"chat_id": 7, "text": "hi"}')
        assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(
    ("arrivals", "rules", "bound"),
    [
        ([], Rules(WIDE, WIDE, WIDE), 0),
        ([Arrival(5, 1)], Rules(WIDE, WIDE, WIDE), 5),
        ([Arrival(0, chat) for chat in range(100)], Rules(Rule(10, SECOND, 10), WIDE, WIDE), 9 * SECOND),
        ([Arrival(0, 1)] * 5 + [Arrival(0, 2)] * 3, Rules(WIDE, Rule(1, SECOND), WIDE), 4 * SECOND),
        ([Arrival(0, 1)] * 3 + [Arrival(9 * SECOND, 1)] * 2, Rules(WIDE, Rule(1, SECOND), WIDE), 10 * SECOND),
        ([Arrival(0, -1)] * 21, Rules(WIDE, Rule(1, SECOND), Rule(20, 60 * SECOND)), 60 * SECOND),
    ],
)
def test_the_bound_and_a_schedule_that_reaches_it(arrivals: list[Arrival], rules: Rules, bound: int) -> None:
    assert lower_bound(arrivals, rules) == bound
    assert max((sent.at for sent in achievable(arrivals, rules)), default=0) == bound


rule = st.builds(Rule, st.integers(1, 40), st.sampled_from([SECOND, 7 * SECOND, 60 * SECOND]), st.integers(1, 5))
arrival = st.builds(Arrival, st.integers(0, 20 * SECOND), st.integers(-3, 5))


@given(st.lists(arrival, max_size=60), st.builds(Rules, rule, rule, rule), st.integers(0, SECOND))
def test_any_schedule_is_accepted_complete_in_order_and_not_below_the_bound(
    arrivals: list[Arrival], rules: Rules, service: int
) -> None:
    arrivals = [Arrival(one.at, one.chat_id, str(number)) for number, one in enumerate(arrivals)]
    sent = achievable(arrivals, rules, service)
    chats = ChatPlatform(rules, slack=0)
    assert not any(chats.receive(one.chat_id, one.text, one.at) for one in sent)
    ordered = sorted(arrivals, key=lambda one: one.at)
    for chat_id in {one.chat_id for one in arrivals}:
        assert [one.text for one in sent if one.chat_id == chat_id] == [one.text for one in ordered if one.chat_id == chat_id]
    came = {one.text: one.at for one in arrivals}
    assert all(one.at >= came[one.text] for one in sent)
    assert len(sent) == len(arrivals)
    assert max((one.at for one in sent), default=0) >= lower_bound(arrivals, rules)


def test_for_a_thousand_chats_the_schedule_is_within_a_hundredth_of_the_bound() -> None:
    some = random.Random(4)
    rules = Rules.scaled(10)
    # A fifth of them groups; a few chats are busy, none so much that it alone would take the longest.
    chats = [chat if chat % 5 else -chat for chat in range(1, 1001)]
    arrivals = [Arrival(some.randrange(10 * SECOND), some.choice(chats), str(n)) for n in range(20_000)]
    bound = lower_bound(arrivals, rules)
    reached = max(sent.at for sent in achievable(arrivals, rules))
    assert bound <= reached <= bound * 1.01
    assert 60 * SECOND < bound < 75 * SECOND
