from __future__ import annotations

import pytest

from redisq.redact import MAX_TEXT, error_text, redact

TELEGRAM = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"404 for https://api.telegram.org/bot{TELEGRAM}/sendMessage", "404 for https://api.telegram.org/bot***/sendMessage"),
        ("xoxb-1234-abcd", "xox*-***"),
        ("key sk-abcdefghijklmnopqrstuvwx", "key sk-***"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("redis://user:hunter2@host:6379", "redis://user:***@host:6379"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("url?access_token=abc&x=1", "url?access_token=***&x=1"),
        ('{"password": "hunter2", "a": 1}', '{"password": "***", "a": 1}'),
        ("nothing to hide at 12:30", "nothing to hide at 12:30"),
    ],
)
def test_secrets_are_replaced_and_the_rest_is_left(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_an_error_is_one_line_without_control_characters_or_secrets() -> None:
    error = ValueError(f"no\n2026 INFO forged \x1b]0;title\x07 \u202e {TELEGRAM}")
    text = error_text(error)
    assert text.startswith("ValueError: no\\x0a2026 INFO forged \\x1b]0;title\\x07")
    assert text.isprintable()
    assert TELEGRAM not in text


def test_a_long_error_is_cut() -> None:
    assert len(error_text(ValueError("x" * 10**6))) == MAX_TEXT


def test_an_error_without_words_is_its_type() -> None:
    assert error_text(TimeoutError()) == "TimeoutError"
