"""Which gate a refusal shuts, and for how long."""

from __future__ import annotations

import pytest

from redisq.gates.blame import MOST, Blame
from redisq.gates.descriptor import Gates
from redisq.gates.limit import Limit
from redisq.gates.limited import RateLimit, Scope


def send(chat_id: int, model: str = "large", user: int | None = None) -> None: ...


def counted(*limits: str, chat_id: int = 42) -> list[tuple[Limit, str]]:
    return Gates("send", send, limits=limits).counted((chat_id,), {})


def refused(scope: Scope | None = None, seconds: float | None = 7.0, key: str | None = None) -> RateLimit:
    return RateLimit(seconds, scope, key, Exception("429"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


CHAT = ("bot:30/s", "chat:{chat_id}:1/s")


@pytest.mark.parametrize(
    ("scope", "limits", "gate"),
    [
        ("chat", CHAT, "chat:42"),
        ("bot", CHAT, "bot"),
        ("method", CHAT, "bot"),
        ("model", ("llm:{model}:60/m", "user:{chat_id}:5/m"), "llm:large"),
        ("model", ("llm: 8 at once", "user:{chat_id}:5/m"), "llm"),
        ("model", ("model:gpt",), "model:gpt"),
        ("chat", ("bot:30/s", "peer:{chat_id}:1/s"), "peer:42"),
        ("chat", ("bot:30/s",), ""),
        ("bot", ("chat:{chat_id}:1/s",), ""),
        ("chat", ("bot:30/s", "user:{user}:1/s"), ""),
        (None, CHAT, "chat:42"),
        (None, ("bot:30/s",), "bot"),
        (None, ("chat:{chat_id}:1/s",), "chat:42"),
        (None, (), ""),
        ("chat", (), ""),
    ],
)
def test_which_gate(scope: Scope | None, limits: tuple[str, ...], gate: str) -> None:
    assert Blame().judge(refused(scope), counted(*limits), "send").gate == gate


def test_a_handler_names_any_gate() -> None:
    blame = Blame()
    assert blame.judge(refused(key="chat:7"), counted(*CHAT), "send").gate == "chat:7"
    assert blame.judge(refused(key="bot"), (), "send").gate == "bot"
    assert blame.judge(refused(key="chat:a b|c"), (), "send").gate == "chat:a%20b%7Cc"
    assert blame.judge(refused(key="a b"), (), "send").gate == "a%20b"


@pytest.mark.parametrize("scope", [None, "chat"])
def test_refusals_of_three_chats_within_a_second_shut_the_bot(scope: Scope | None) -> None:
    clock = Clock()
    blame = Blame(clock)
    gates = []
    for chat in (1, 1, 2, 3, 4):
        gates.append(blame.judge(refused(scope), counted(*CHAT, chat_id=chat), "send").gate)
        clock.now += 0.2
    assert gates == ["chat:1", "chat:1", "chat:2", "bot", "bot"]


def test_refusals_of_chats_now_and_then_are_about_the_chats() -> None:
    clock = Clock()
    blame = Blame(clock)
    for chat in range(1, 9):
        assert blame.judge(refused("chat", 30), counted(*CHAT, chat_id=chat), "send").gate == f"chat:{chat}"
        clock.now += 0.6


def test_what_the_platform_or_the_handler_says_for_sure_is_not_doubted() -> None:
    blame = Blame(Clock())
    for chat in range(9):
        assert blame.judge(refused(key=f"chat:{chat}"), counted(*CHAT, chat_id=chat), "send").gate == f"chat:{chat}"
        assert blame.judge(refused("model"), counted("model:{model}", "all:9/s"), "send").gate == "model:large"


def test_a_wait_that_is_not_said_doubles_while_it_goes_on() -> None:
    clock = Clock()
    blame = Blame(clock)
    waits = []
    for _ in range(8):
        waits.append(blame.judge(refused("bot", None), counted(*CHAT), "send").seconds)
        clock.now += waits[-1] + 0.5
    assert waits == [1, 2, 4, 8, 16, 32, MOST, MOST]
    clock.now += 2 * MOST + 2
    assert blame.judge(refused("bot", None), counted(*CHAT), "send").seconds == 1


def test_refusals_that_were_on_their_way_together_count_once() -> None:
    clock = Clock()
    blame = Blame(clock)
    assert blame.judge(refused("bot", None), counted(*CHAT), "send").seconds == 1
    clock.now += 0.25
    assert [blame.judge(refused("bot", None), counted(*CHAT), "send").seconds for _ in range(100)] == [0.75] * 100
    clock.now += 1
    assert blame.judge(refused("bot", None), counted(*CHAT), "send").seconds == 2


def test_a_task_without_limits_waits_longer_from_time_to_time_too() -> None:
    clock = Clock()
    blame = Blame(clock)
    assert blame.judge(refused(None, None), (), "one").seconds == 1
    clock.now += 1.5
    assert blame.judge(refused(None, None), (), "one").seconds == 2
    assert blame.judge(refused(None, None), (), "other").seconds == 1


def test_what_it_remembers_is_bounded() -> None:
    blame = Blame(Clock())
    for chat in range(5000):
        blame.judge(refused("chat"), counted(*CHAT, chat_id=chat), "send")
    assert len(blame._shut) <= 1000
