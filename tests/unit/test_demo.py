from __future__ import annotations

import io
import json
import sys
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path

import pytest
from rich.console import Console

from redisq.broker.commands import QueueView
from redisq.cli import demo as command
from redisq.demo import bot, chat_api
from redisq.demo.live import Live
from redisq.demo.result import DeadLetter, Latency, Result
from redisq.demo.show import Lines
from redisq.demo.traffic import TALK, TALKERS, TOTAL, ChatMessage, chat_messages

ROOT = Path(__file__).parents[2]

RESULT = Result(
    messages=200,
    answered=199,
    answered_again=2,
    retries=30,
    workers_killed=3,
    taken_back=9,
    dead=[DeadLetter("id", 12, "crashed", 1, 3, "the worker died [or] not")],
    in_order=29,
    out_of_order=1,
    limited=1,
    too_early=3,
    busiest_second=32,
    latency=Latency(2.04, 5.0),
    priority_latency=Latency(1.0, 3.0),
    seconds=12.3,
)


def test_the_example_to_copy_is_the_bot_that_the_demo_runs() -> None:
    assert (ROOT / "examples" / "chat_bot.py").read_bytes() == Path(bot.__file__).read_bytes()


def test_the_messages_are_the_same_each_time() -> None:
    messages = chat_messages()
    assert messages == chat_messages()
    assert [message.number for message in messages] == list(range(1, TOTAL + 1))
    chats = Counter(message.chat_id for message in messages)
    assert Counter(chats.values()) == {TALK: TALKERS, 1: TOTAL - TALK * TALKERS}
    assert all(0.05 <= message.latency <= 0.3 for message in messages)
    assert sorted(message.hopeless for message in messages if message.hopeless) == ["broken", "poison", "refused"]
    assert {message.fault for message in messages} == {"", "500", "503", "silence", "429"}


@pytest.mark.parametrize(("seconds", "p50", "p99"), [([], 0, 0), ([1], 1, 1), ([2, 1], 1, 2), (list(range(1, 101)), 50, 99)])
def test_latency_takes_the_nearest_rank(seconds: list[float], p50: float, p99: float) -> None:
    assert Latency.of(seconds) == Latency(p50, p99)


def ask(address: str, number: int) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", "/chats/42/messages", json.dumps({"reply_to": number, "text": "hi"}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_chat_api_fails_once_or_always() -> None:
    messages = [
        ChatMessage(1, 41, "hi", 0, "503"), ChatMessage(2, 42, "hi", 0, hopeless="broken"), ChatMessage(3, 43, "hi", 0)
    ]  # fmt: skip
    with chat_api.running(messages) as api:
        assert [ask(api.address, 1)[0] for _ in range(2)] == [503, 200]
        assert [ask(api.address, 2)[0] for _ in range(2)] == [500, 500]
        assert [ask(api.address, 3) for _ in range(2)] == [(200, {"ok": True})] * 2
    assert sorted(api.answered) == [1, 3]
    assert (api.again, api.busiest_second()) == (1, 6)


def test_the_chat_api_sees_who_overtakes_and_who_does_not_wait() -> None:
    messages = [ChatMessage(number, 42, "hi", 0, "429" if number == 2 else "") for number in (1, 2, 3)]
    with chat_api.running(messages) as api:
        answers = [ask(api.address, number) for number in (1, 2, 3, 2)]
    assert answers[1] == (429, {"error": "too many requests", "retry_after": 2.0})
    assert (api.out_of_order, api.too_early) == (1, 2)


def test_without_rich_it_shows_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(command._show(), Lines)


@pytest.mark.parametrize("url", [None, "embedded:///tmp/of-the-demo"])
def test_lines_and_terminal_tell_the_same_end(url: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(**{name: getattr(RESULT, name) for name in RESULT.__slots__} | {"url": url})
    Lines().end(result)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    with Live(console) as live:
        live.event(1.0, "a message [of] a killed worker", "bad")
        live.progress(2.0, 200, QueueView(1, 2, 3, 4, 5, False, None, {"processed_requests": 185}))
    live.end(result)
    shown = console.export_text()
    assert "a message [of] a killed worker" in shown
    assert "190 of 200" in shown
    for text in (capsys.readouterr().out, shown):
        for words in (
            "199", "2 of them twice", "out of order: 1", "3 came too early", "32", "chat 12", "the worker died [or] not",
            "2.0, 5.0", "redisq dead replay JOB",
        ):  # fmt: skip
            assert words in text
        assert (f"export REDISQ_URL={url}" in text) == (url is not None)
        assert ("Nothing is left behind" in text) == (url is None)
