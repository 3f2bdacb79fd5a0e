"""`redisq limits`, `pause` and `resume` of lanes and limits, and what `status` and `inspect` say of them."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from redisq import RedisQ
from redisq.app.limits import LimitState
from redisq.errors import ConfigError
from tests.integration.operator import Operator, Stage

LIMITS = ["bot:30/s burst 3", "chat:{chat_id}:1/m"]


@pytest.fixture
def jobs(stage: Stage) -> list[str]:
    """Two lanes of three; the first of each is at work, and the next wait at their chats' limits."""
    sent = [
        stage.waiting("chat_api", kwargs={"chat_id": chat, "text": text}, key=chat, limits=LIMITS)
        for text in ("a", "b", "c")
        for chat in (1, 2)
    ]
    stage._claim("chat_api", "worker1")
    return sent


def listed(operator: Operator) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in operator.json("limits", "list")["limits"]}


def test_no_limits(operator: Operator, stage: Stage) -> None:
    stage.waiting("chat_api")
    assert operator.text("limits", "list") == "no limits\n"
    assert operator.json("limits", "list") == {"limits": []}


def test_the_list_has_rules_and_what_is_held_back(operator: Operator, jobs: list[str]) -> None:
    found = listed(operator)
    assert list(found) == ["bot", "chat"]
    assert (found["bot"]["rule"], found["bot"]["by_operator"], found["bot"]["paused"]) == ("30/s burst 3", False, False)
    lines = operator.text("limits", "list").splitlines()
    assert lines[0].split()[:4] == ["queue", "limit", "rule", "set"]
    assert lines[1].split()[:3] == ["chat_api", "bot", "30/s"]


def test_a_limit_is_set_and_cleared(operator: Operator, jobs: list[str]) -> None:
    assert operator.text("limits", "set", "bot", "5/s") == "limit bot of queue chat_api is 5/s now\n"
    assert operator.json("limits", "set", "chat:2", "1/s", "burst", "3") == {
        "queues": ["chat_api"], "name": "chat:2", "rule": "1/s burst 3",
    }  # fmt: skip
    found = listed(operator)
    assert (found["bot"]["rule"], found["bot"]["by_operator"]) == ("5/s", True)
    assert (found["chat:2"]["rule"], found["chat:2"]["by_operator"]) == ("1/s burst 3", True)
    assert operator.text("limits", "clear", "bot") == "limit bot of queue chat_api is as in the code again\n"
    assert operator.json("limits", "clear", "chat:2") == {"queues": ["chat_api"], "name": "chat:2"}
    found = listed(operator)
    assert (found["bot"]["rule"], found["bot"]["by_operator"]) == ("30/s burst 3", False)
    assert "chat:2" not in found


def test_a_limit_is_paused_and_resumed(operator: Operator, jobs: list[str]) -> None:
    assert operator.text("limits", "pause", "bot", "--for", "90") == "limit bot of queue chat_api is paused for 1 min 30 s\n"
    assert operator.text("pause", "chat_api", "--limit", "chat:7") == "limit chat:7 of queue chat_api is paused\n"
    found = listed(operator)
    assert 85 < found["bot"]["paused_for"] <= 90
    assert (found["chat:7"]["paused"], found["chat:7"]["paused_for"]) == (True, None)
    chat = operator.json("status")["queues"][0]
    assert 85 < chat["pauses"]["bot"] <= 90
    assert chat["pauses"]["chat:7"] is None
    text = operator.text("status")
    assert "chat_api: limit bot is paused for 1 min " in text
    assert "chat_api: limit chat:7 is paused until it is resumed" in text
    assert operator.text("limits", "resume", "bot") == "limit bot of queue chat_api goes on\n"
    assert operator.json("resume", "chat_api", "--limit", "chat:7") == {
        "queue": "chat_api", "limit": "chat:7", "lane": None, "paused": False,
    }  # fmt: skip
    assert operator.json("status")["queues"][0]["pauses"] == {}


def test_a_lane_is_paused_and_resumed(operator: Operator, stage: Stage, jobs: list[str]) -> None:
    stage.waiting("chat_api", key="a b")
    assert operator.text("pause", "chat_api", "--lane", "a b") == "lane a b of queue chat_api is paused\n"
    assert stage._claim("chat_api", "worker1") == []
    assert "chat_api: lane a%20b is paused until it is resumed" in operator.text("status")
    assert operator.text("resume", "chat_api", "--lane", "a b") == "lane a b of queue chat_api goes on\n"
    assert len(stage._claim("chat_api", "worker1")) == 1


def test_a_paused_queue_is_one_as_before(operator: Operator, jobs: list[str]) -> None:
    assert operator.text("pause", "chat_api") == "queue chat_api is paused\n"
    assert operator.json("status")["queues"][0]["paused"] is True
    assert operator.json("resume", "chat_api") == {"queue": "chat_api", "limit": None, "lane": None, "paused": False}
    assert "a queue is paused until it is resumed" in operator.error("pause", "chat_api", "--for", "5")


def test_a_mistyped_limit_is_told(operator: Operator, jobs: list[str]) -> None:
    for command in (("set", "bots", "5/s"), ("pause", "bots"), ("resume", "bots"), ("clear", "bots:42")):
        assert operator.error("limits", *command) == (
            "Error: no queue has a limit 'bots'; there is chat_api: bot, chat. To mean it all the same: -Q QUEUE\n"
        )
    assert "want a rate" in operator.error("limits", "set", "bot", "fast")
    assert operator.text("limits", "pause", "bots", "-Q", "chat_api") == "limit bots of queue chat_api is paused\n"


def test_inspect_shows_lane_and_limits(operator: Operator, stage: Stage, jobs: list[str]) -> None:
    second = operator.json("inspect", jobs[2])
    assert (second["state"], second["lane"], second["lane_position"]) == ("waiting", "1", 1)
    assert (second["lane_holder"], second["limits"]) == (jobs[0], ["bot", "chat:1"])
    third = operator.json("inspect", jobs[4])
    assert third["lane_position"] == 2
    first = operator.json("inspect", jobs[0])
    assert (first["state"], first["lane"], first["lane_position"], first["waits_at"]) == ("processing", "1", None, None)
    assert first["lane_holder"] is None
    text = operator.text("inspect", jobs[4])
    assert f"lane         1\nin the lane  2\nbehind       {jobs[0]}\nlimits       bot, chat:1\n" in text
    plain = operator.json("inspect", stage.waiting("chat_api"))
    assert (plain["lane"], plain["limits"], plain["waits_at"]) == (None, [], None)


def test_inspect_and_status_show_what_holds_a_job_back(operator: Operator, stage: Stage) -> None:
    waits = [stage.waiting("chat_api", limits=["bot:1/m"]) for _ in range(3)]
    stage._claim("chat_api", "worker1")
    assert [operator.json("inspect", job)["waits_at"] for job in waits] == [None, "bot", "bot"]
    assert "waits at" in operator.text("inspect", waits[1])
    (bot,) = operator.json("limits", "list")["limits"]
    assert (bot["waiting"], bot["lanes"], bot["free"]) == (2, 1, 0)
    assert 50 < bot["opens_in"] <= 60
    assert operator.json("status")["queues"][0]["held_back"] == 1
    assert "chat_api: 1 lane held back by limits: redisq limits list -Q chat_api" in operator.text("status")


def test_from_python(stage: Stage, jobs: list[str]) -> None:
    control = stage.app.control
    assert control.set_limit("chat_api", "bot", "60/m") == "60/m"
    control.pause("chat_api", limit="chat:1", seconds=60)
    control.pause("chat_api", lane=2)
    states = {state.name: state for state in control.limits("chat_api")}
    assert (states["bot"].rule, states["bot"].by_operator) == ("60/m", True)
    assert 55 < (states["chat:1"].paused_for or 0) <= 60
    assert states["@2"] == LimitState("@2", paused_for=math.inf, waiting=states["@2"].waiting, lanes=states["@2"].lanes)
    control.resume("chat_api", limit="chat:1")
    control.resume("chat_api", lane=2)
    control.clear_limit("chat_api", "bot")
    assert [(state.name, state.paused_for) for state in control.limits("chat_api")] == [("bot", None), ("chat", None)]
    for wrong in ({"limit": "bot", "lane": 1}, {"seconds": 5}, {"limit": ""}, {"limit": "chat:"}, {"lane": ""}):
        with pytest.raises(ConfigError):
            control.pause("chat_api", **wrong)


def test_from_async_python(stage: Stage, jobs: list[str]) -> None:
    async def use(app: RedisQ) -> list[Any]:
        control = app.control
        seen: list[Any] = [await control.aset_limit("chat_api", "bot", "5/s")]
        await control.apause("chat_api", limit="bot", seconds=60)
        seen += [(state.name, state.rule, state.paused_for is not None) for state in await control.alimits("chat_api")]
        await control.aresume("chat_api", limit="bot")
        await control.aclear_limit("chat_api", "bot")
        seen += [(state.name, state.rule, state.paused_for) for state in await control.alimits("chat_api")]
        await app.aclose()
        return seen

    assert asyncio.run(use(stage.app)) == [
        "5/s", ("bot", "5/s", True), ("chat", "1/m", False), ("bot", "30/s burst 3", None), ("chat", "1/m", None),
    ]  # fmt: skip
