from __future__ import annotations

import time

import pytest

from redisq.redact import MAX_REDACTED, MAX_TEXT, error_text, redact

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
        ("REDIS_PASSWORD=hunter2 db_password: hunter2", "REDIS_PASSWORD=*** db_password: ***"),
        ("OPENAI_API_KEY=abc, client_secret=abc", "OPENAI_API_KEY=***, client_secret=***"),
        ("password='two words' x", "password='***' x"),
        ('{"client_secret": "two words"}', '{"client_secret": "***"}'),
        ("https://hooks.slack.com/services/T0/B0/abc", "https://hooks.slack.com/services/***"),
        ("https://discord.com/api/webhooks/123/abc-d_e x", "https://discord.com/api/webhooks/123/*** x"),
        ("Authorization: Bot MTk4NjIy", "Authorization: Bot ***"),
        ("'authorization': 'tokenvalue'", "'authorization': '***'"),
        ("GET /v1?key=AIzaSyA1234567890&alt=json", "GET /v1?key=***&alt=json"),
        ("gsk_0123456789abc xai-0123456789abc hf_0123456789abc", "*** *** ***"),
        ("ghp_0123456789abc github_pat_0123456789abc", "*** ***"),
        ("sk_live_0123456789abc AKIAIOSFODNN7EXAMPLE", "*** ***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_d end", "*** end"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- end", "*** end"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "***"),
        ("Set-Cookie: session=abc; Path=/\nnext", "Set-Cookie: ***\nnext"),
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


@pytest.mark.parametrize(
    "piece",
    [
        "x-", "x", "-", ":", "=", "token", "token=", "token='", 'password="', "a:", "://", "://a", "://a:", "bearer ",
        " ", "sk-", "hf_", "eyJ-",
        "eyJaaaaaaaa.", "-----BEGIN A-----", "-----BEGIN ", "MNOMNOMNO-", "1", "12345678:", "cookie:", "authorization: a ", "xoxa-",
        "/api/webhooks/1/",
        "?key=", "AKIA", "ghp_", "secret  ",
    ],
)  # fmt: skip
def test_time_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        begun = time.process_time()
        redact(text)
        return time.process_time() - begun

    # Ten times the text takes 100 times as long where the time is quadratic; half a second is far above any linear time.
    assert seconds(100_000) < max(0.5, 40 * seconds(10_000))


def test_what_is_redacted_is_bounded() -> None:
    assert len(redact("x-" * 10**6)) == MAX_REDACTED
