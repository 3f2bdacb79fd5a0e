"""What one may write as a limit, and what it means."""

from __future__ import annotations

import pytest

from redisq.errors import ConfigError
from redisq.gates.limit import parse_limit, parse_rule, show_definition


@pytest.mark.parametrize(
    ("text", "name", "instance", "kind", "definition"),
    [
        ("bot:30/s", "bot", "", "rate", "30 1000000 2"),
        ("chat:{chat_id}:1/s burst 3", "chat", "{chat_id}", "rate", "1 1000000 3"),
        ("group:{chat_id}:20/m", "group", "{chat_id}", "rate", "20 60000000 1"),
        ("llm: 8 at once", "llm", "", "slots", "8"),
        ("llm:{model}: 8 at once", "llm", "{model}", "slots", "8"),
        ("llm:8 at once", "llm", "", "slots", "8"),
        ("tokens:60000/m", "tokens", "", "rate", "60000 60000000 50"),
        ("model:gpt", "model", "gpt", "pause", ""),
        ("model:{model}", "model", "{model}", "pause", ""),
        ("everything", "everything", "", "pause", ""),
        ("pair:{a}:{b.c[d]}:1/6s", "pair", "{a}:{b.c[d]}", "rate", "1 6000000 1"),
        (" bot : 30 / s  burst  5 ", "bot", "", "rate", "30 1000000 5"),
    ],
)
def test_the_forms_of_a_limit(text: str, name: str, instance: str, kind: str, definition: str) -> None:
    limit = parse_limit(text, "greet")
    assert (limit.name, limit.instance, limit.kind, limit.definition) == (name, instance, kind, definition)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("1/s", 1_000_000),
        ("1/10s", 10_000_000),
        ("1/0.5s", 500_000),
        ("1/2m", 120_000_000),
        ("1/h", 3_600_000_000),
        ("1/d", 86_400_000_000),
    ],
)
def test_periods(text: str, period: int) -> None:
    assert parse_rule(text).period == period


@pytest.mark.parametrize(
    ("text", "burst"), [("1/h", 1), ("20/s", 1), ("21/s", 1), ("50/s", 2), ("2000/s", 100), ("2000/s burst 1", 1)]
)
def test_a_fast_rate_has_a_burst_of_fifty_milliseconds_unless_it_is_given(text: str, burst: int) -> None:
    assert parse_rule(text).burst == burst


@pytest.mark.parametrize(
    ("text", "lesson"),
    [
        ("", "begins with its name"),
        ("30/s", "begins with its name"),
        ("{chat_id}:1/s", "begins with its name"),
        ("bot:", "nothing after a colon"),
        ("bot::30/s", "nothing after a colon"),
        ("bot:30", "30/s, 30/m, or 30 at once"),
        ("bot:30/", "neither a rate"),
        ("bot:30/min", "want s, m, h or d"),
        ("bot:30/s burst", "neither a rate"),
        ("bot:0/s", "out of range"),
        ("bot:0.5/s", "neither a rate"),
        ("bot:-1/s", "neither a rate"),
        ("bot:30/0s", "0.001 s at least"),
        ("bot:1/s burst 0", "out of range"),
        ("bot:1/s burst 99999999999999999999999", "out of range"),
        ("bot:1/30d burst 1000000000", "too large"),
        ("llm: 0 at once", "out of range"),
        ("llm: 8 at", "neither a rate"),
        ("chat:{chat_id:1/s", "neither a rate"),
        ("model:open ai", "neither a rate"),
        (30, "want text"),
    ],
)
def test_an_error_says_which_task_and_limit_and_what_to_write(text: str, lesson: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_limit(text, "greet")
    assert f"task greet: limit {text!r}" in str(caught.value)
    assert lesson in str(caught.value)


@pytest.mark.parametrize("text", ["fast", "", "{x}", "1 at", "bot:1/s"])
def test_an_operator_is_told_what_a_rule_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"30/s, 20/m burst 3, 5/10s"):
        parse_rule(text)


@pytest.mark.parametrize(
    "text", ["30/s", "1/s burst 3", "20/m", "5/10s", "1/0.5s", "7/90s", "1/36h", "2/d", "8 at once", "60000/m"]
)
def test_a_stored_definition_is_shown_as_it_would_be_written(text: str) -> None:
    assert show_definition(parse_rule(text).definition) == text


@pytest.mark.parametrize("stored", ["", "x", "1 2", "1 2 3 4"])
def test_what_is_no_definition_is_shown_as_it_is(stored: str) -> None:
    assert show_definition(stored) == stored
