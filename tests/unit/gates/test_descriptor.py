"""The line that the scripts read of a call's gates."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.errors import ArgumentsError, ConfigError
from redisq.gates.descriptor import Gates


def send(chat_id: Any, text: str = "", group_id: Any = None, n_tokens: Any = 1) -> None: ...


def gates(**options: Any) -> Gates:
    return Gates("send", send, **options)


def line(*args: Any, head_start: int = 0, **options: Any) -> str:
    return gates(**options).descriptor(head_start, args, {})


def test_a_lane_and_two_limits() -> None:
    assert (
        line(42, head_start=600, key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}:1/s burst 3"])
        == "600 C @42 Rbot,1 Rchat:42,1"
    )


def test_a_lane_that_waits_for_an_operator() -> None:
    assert line(42, key="{chat_id}", on_dead="hold") == "0 H @42"


def test_without_a_lane_the_limits_are_the_flow() -> None:
    limits = ["bot:30/s", "llm:{text}: 8 at once", "model:gpt"]
    assert line(42, "a", limits=limits) == "0 F bot+llm:a+model:gpt Rbot,1 Sllm:a,1 Rmodel:gpt,0"


def test_a_call_that_a_limit_does_not_count_does_not_name_it() -> None:
    limits = ["bot:30/s", "group:{group_id}:20/m"]
    assert line(42, limits=limits) == "0 F bot Rbot,1"
    assert line(42, "", 7, limits=limits) == "0 F bot+group:7 Rbot,1 Rgroup:7,1"


def test_a_call_with_neither_lane_nor_limit_has_no_line() -> None:
    assert line(None, key="{chat_id}") == ""
    assert line(None, key="{chat_id}", limits=["group:{group_id}:20/m"]) == ""
    assert line(None, key="{chat_id}", limits=["bot:30/s"]) == "0 F bot Rbot,1"
    assert not gates()
    assert gates(key="x")


def test_names_are_encoded_and_long_flows_hashed() -> None:
    assert line("a b:c", key="{chat_id}", limits=["chat:{chat_id}:1/s"]) == "0 C @a%20b%3Ac Rchat:a%20b%3Ac,1"
    joined = f"a:{'x' * 100}+b:{'x' * 100}"
    flow = line("x" * 100, limits=["a:{chat_id}:1/s", "b:{chat_id}:1/s"]).split(" ")[2]
    assert flow == "#" + hashlib.sha256(joined.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(5, 5), ("n_tokens", 300), (lambda text, n_tokens: len(text) + n_tokens, 303), ({"tokens": "n_tokens"}, 300), (None, 1)],
)
def test_the_cost_of_a_call(cost: Any, expected: int) -> None:
    assert line(42, "abc", None, 300, limits=["tokens:60000/m", "llm: 8 at once"], cost=cost).split(" ")[3:] == [
        f"Rtokens,{expected}",
        "Sllm,1",
    ]


def test_a_cost_is_for_the_limit_that_it_names() -> None:
    assert line(42, "abc", None, 300, limits=["bot:30/s", "tokens:60000/m"], cost={"tokens": "n_tokens"}) == (
        "0 F bot+tokens Rbot,1 Rtokens,300"
    )


@pytest.mark.parametrize("cost", [0, -1, 1_000_001, 1.5, None, "12", True])
def test_a_cost_that_is_none_is_refused_with_the_call(cost: Any) -> None:
    with pytest.raises(ArgumentsError, match=r"task send: cost of 'tokens': .*want a whole number from 1 to 1000000"):
        line(42, "abc", None, cost, limits=["tokens:60000/m"], cost="n_tokens")


def test_definitions_are_those_of_rates_and_slots() -> None:
    assert gates(limits=["bot:30/s", "llm:{text}: 8 at once", "model:gpt"]).definitions == {"bot": "30 1000000 2", "llm": "8"}


@pytest.mark.parametrize(
    ("options", "lesson"),
    [
        ({"limits": ["chat:{chat_id}:1/s", "chat:{chat_id}:20/m"]}, "two limits are called 'chat'"),
        ({"limits": "bot:30/s"}, r"limits=\['bot:30/s'\]"),
        ({"limits": ["chat:{chat}:1/s"]}, "has no parameter 'chat'"),
        ({"key": "{chat}"}, "has no parameter 'chat'"),
        ({"on_dead": "stop", "key": "x"}, "'continue' or 'hold'"),
        ({"on_dead": "hold"}, "give it one with key="),
        ({"lane_cap": 5}, "give it one with key="),
        ({"lane_cap": 0, "key": "x"}, "whole number > 0"),
        ({"cost": 5}, "has no rate"),
        ({"cost": 5, "limits": ["bot:30/s", "tokens:60000/m"]}, r"say which, as cost=\{'bot': 5\}"),
        ({"cost": {"llm": 5}, "limits": ["llm: 8 at once"]}, "no rate of that name"),
        ({"cost": 0, "limits": ["bot:30/s"]}, "from 1 to 1000000"),
        ({"cost": 1.5, "limits": ["bot:30/s"]}, "want a whole number"),
        ({"cost": "tokens", "limits": ["bot:30/s"]}, "has no parameter 'tokens'"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_the_task_is_decorated(options: dict[str, Any], lesson: str) -> None:
    with pytest.raises(ConfigError, match=rf"task send: .*{lesson}"):
        gates(**options)


@given(st.one_of(st.text(), st.integers(), st.none()), st.one_of(st.text(), st.none()))
def test_any_arguments_make_a_line_that_two_patterns_read(chat: Any, text: str | None) -> None:
    found = line(chat, text, key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}-{text}:1/s", "llm:{text}: 2 at once"])
    assert re.fullmatch(r"\d+ [CHF] [^ ]{1,130}( [RS][A-Za-z0-9_.@-]+(:[A-Za-z0-9_.@%#-]+)?,\d+)*", found)
