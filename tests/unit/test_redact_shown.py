"""Texts and arguments on a screen."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from redisq.redact import escape, redacted, shown

TELEGRAM = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\r\nb\x1b[2J\x7f\x9b", "a\\x0d\\x0ab\\x1b[2J\\x7f\\x9b"),
        ("\u202e\u2066\u200f\u061c\ufeff", "\\u202e\\u2066\\u200f\\u061c\\ufeff"),
        ("\ud800", "\\ud800"),
        ("naïve 日本 👩‍🚀", "naïve 日本 👩‍🚀"),
    ],
)
def test_what_steers_a_terminal_is_written_out_and_the_rest_is_left(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize("before", range(400, 520, 7))
def test_a_secret_on_the_edge_of_what_is_shown_is_not_shown_in_part(before: int) -> None:
    text = shown("x " * (before // 2) + TELEGRAM + " y" * 1000)
    assert "AAHdq" not in text
    assert "123456789" not in text
    assert text.endswith("…")


def test_a_secret_at_the_end_of_what_is_looked_at_is_not_shown_in_part() -> None:
    for padding in range(700, 800):
        assert "12345" not in shown(f"password={'p' * 200} " + "x" * (padding - 210) + " " + TELEGRAM + "y" * 500)


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        ([1, 2.5, True, None, "text"], [1, 2.5, True, None, "text"]),
        ((b"\x00" * 7,), ["<7 bytes>"]),
        ({"a": {"refresh_token": "abc", "Password": 5}}, {"a": {"refresh_token": "***", "Password": "***"}}),
        ({"secret": None}, {"secret": None}),
        ({TELEGRAM: 1, 5: 2}, {"***": 1, "5": 2}),
        ([float("nan"), float("-inf"), date(2026, 1, 2)], ["nan", "-inf", "2026-01-02"]),
        ("x" * 6000, "x" * 5000 + "…"),
    ],
)  # fmt: skip
def test_arguments_become_json_without_secrets(value: Any, as_json: Any) -> None:
    assert redacted(value) == as_json
