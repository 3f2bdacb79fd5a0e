"""`redisq status` and `redisq inspect`."""

from __future__ import annotations

import pytest
import redis

from tests.integration.operator import TELEGRAM, Operator, Stage
from tests.servers import free_port

EMPTY = {
    "waiting": 0, "delayed": 0, "retry": 0, "processing": 0, "dead": 0, "paused": False, "oldest_age": None,
    "overdue": 0, "overdue_age": None, "expired": 0, "expired_age": None, "served": False, "stateless": 0,
    "bodiless": 0, "held_back": 0, "pauses": {}, "stats": {},
}  # fmt: skip


@pytest.fixture
def queues(stage: Stage) -> dict[str, str]:
    """A queue with a message in every state, and another one."""
    jobs = {
        "dead": stage.dead("chat_api"),
        "retry": stage.settled("chat_api", "retry", delay=60_000_000, text="TimeoutError: no answer"),
        "processing": stage.processing("chat_api"),
        "waiting": stage.waiting("chat_api", args=[42, "hi"], kwargs={"reply": True}),
        "delayed": stage.waiting("chat_api", countdown=3600),
    }
    stage.waiting("mail")
    return jobs


def test_status_finds_all_queues_with_their_lengths_and_counters(operator: Operator, queues: dict[str, str]) -> None:
    found = operator.json("status")
    assert [queue["queue"] for queue in found["queues"]] == ["chat_api", "mail"]
    chat = found["queues"][0]
    assert [chat[state] for state in queues] == [1] * 5
    assert chat["paused"] is False
    assert 0 <= chat["oldest_age"] < 60
    assert chat["stats"].items() >= {"total_messages": 5, "dlq_messages": 1, "retry_count": 1}.items()


def test_a_message_of_high_priority_is_as_old_as_its_wait(operator: Operator, stage: Stage) -> None:
    job = stage.waiting("mail", priority=9)
    assert 0 <= operator.json("status")["queues"][0]["oldest_age"] < 60
    assert 0 <= operator.json("inspect", job)["age"] < 60
    assert operator.json("inspect", job)["position"] == 1


def test_what_nobody_promotes_or_takes_back_is_told(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    stage.processing("mail")
    stage.waiting("mail", countdown=3600)
    now = float(raw.time()[0])
    for key, ago in (("mail:queue:delayed", 120), ("mail:queue:processing", 60)):
        raw.zadd(key, {raw.zrange(key, 0, 0)[0]: (now - ago) * 1_000_000})
    (mail,) = operator.json("status")["queues"]
    assert (mail["overdue"], mail["expired"], mail["served"]) == (1, 1, False)
    assert 60 <= mail["expired_age"] < 110
    assert 120 <= mail["overdue_age"] == mail["oldest_age"] < 170
    text = operator.text("status")
    assert "mail: 1 message overdue, the first by 2 min" in text
    assert "mail: 1 message whose lease ended, the first 1 min" in text
    assert "mail: no living worker serves it" in text


def test_status_in_words_is_aligned_columns(operator: Operator, queues: dict[str, str]) -> None:
    lines = operator.text("status").splitlines()
    assert lines[0].split() == ["queue", "waiting", "delayed", "retry", "processing", "dead", "paused", "oldest"]
    assert lines[1].split()[:7] == ["chat_api", "1", "1", "1", "1", "1", "no"]
    assert lines[0].index("waiting") + len("waiting") == lines[1].index("1") + 1
    assert "  total_messages  5" in lines


def test_status_of_an_app_shows_its_queues_also_while_they_are_empty(operator: Operator, stage: Stage, bot: str) -> None:
    stage.waiting("other")
    for command in (("status", bot), ("status", "-A", bot)):
        assert operator.json(*command) == {"namespace": "", "queues": [{"queue": name, **EMPTY} for name in ("chat_api", "mail")]}


def test_status_of_chosen_queues(operator: Operator, queues: dict[str, str]) -> None:
    for chosen in (("-Q", "mail,chat_api"), ("-Q", "mail", "-Q", "chat_api")):
        assert [queue["queue"] for queue in operator.json("status", *chosen)["queues"]] == ["mail", "chat_api"]


def test_an_empty_redis_has_no_queues(operator: Operator) -> None:
    assert operator.text("status") == "no queues\n"
    assert operator.json("status") == {"namespace": "", "queues": []}


def test_a_namespace_has_queues_of_its_own(operator: Operator, stage: Stage, bot: str) -> None:
    stage.app.at(namespace="prod").send("mail", queue="mail")
    assert [queue["queue"] for queue in operator.json("status", "--namespace", "prod")["queues"]] == ["mail"]
    assert operator.json("status", "-A", bot, "-Q", "mail", "--namespace", "prod")["queues"][0]["waiting"] == 1
    assert "other namespaces (--namespace): prod" in operator.text("status")


def test_many_other_keys_do_not_hide_a_queue(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    raw.mset({f"foreign:{number}": "" for number in range(3000)})
    stage.waiting("mail")
    assert [queue["queue"] for queue in operator.json("status")["queues"]] == ["mail"]


def test_keys_of_others_that_look_like_queues_are_passed_over(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    raw.set("foreign:config", "text")
    raw.hset("theirs:config", "colour", "red")
    raw.hset("not/a/name:config", "layout", "1")
    raw.hset(b"\xff\xfe:config", "layout", "1")
    stage.waiting("mail")
    assert [queue["queue"] for queue in operator.json("status")["queues"]] == ["mail"]
    raw.delete(b"\xff\xfe:config")


def test_a_queue_that_cannot_be_read_does_not_hide_the_others(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    stage.waiting("mail")
    raw.hset("newer:config", "layout", "2")
    found = operator.json("status", exit_code=1)["queues"]
    assert found[0]["waiting"] == 1
    assert found[1]["queue"] == "newer"
    assert "QueueConflict: inspect on queue newer: REDISQ_LAYOUT" in found[1]["error"]
    assert "Error: QueueConflict" in operator.text("status", exit_code=1)


@pytest.mark.parametrize("command", [("status",), ("inspect", "job"), ("dead", "list"), ("cancel", "job"), ("dead", "show", "job")])
def test_unknown_and_foreign_queues_are_told_apart(
    command: tuple[str, ...], operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    stage.waiting("mail")
    raw.zadd("theirs:queue:main", {"x": 1})
    assert "no queue 'nowhere' in this Redis; there is: mail" in operator.error(*command, "-Q", "nowhere")
    assert "another program wrote the rest" in operator.error(*command, "-Q", "theirs")


@pytest.mark.parametrize(
    "command", [("status",), ("inspect", "j"), ("dead", "list"), ("cancel", "j"), ("purge", "q"), ("send", "t", "-Q", "q")]
)
def test_without_redis_a_command_ends_with_one_line(command: tuple[str, ...]) -> None:
    operator = Operator(f"redis://:hunter2@127.0.0.1:{free_port()}")
    operator.environment["REDIS_TIMEOUT"] = "0.2"
    text = operator.error(*command)
    assert text.startswith("Error: BrokerUnavailable: ")
    assert "hunter2" not in text


def test_the_command_line_wins_over_the_app_and_the_app_over_the_environment(operator: Operator, bot: str, redis_url: str) -> None:
    module = bot.split(":")[0]
    nowhere = f"redis://127.0.0.1:{free_port()}"
    operator.environment |= {"REDISQ_URL": nowhere, "REDIS_TIMEOUT": "0.2"}
    assert operator.json("status", "--url", redis_url)["queues"] == []
    operator.run("status", bot, exit_code=1)
    assert len(operator.json("status", bot, "--url", redis_url)["queues"]) == 2
    with open(f"{module}_says.py", "w") as file:
        file.write(f"from redisq import RedisQ\napp = RedisQ('bot_logic', url={redis_url!r})\n")
    assert operator.json("status", f"{module}_says:app")["queues"] == [{"queue": "bot_logic", **EMPTY}]


def test_inspect_tells_where_a_message_is(operator: Operator, queues: dict[str, str]) -> None:
    for state, job in queues.items():
        found = operator.json("inspect", job)
        assert (found["id"], found["queue"], found["state"], found["position"], found["task"]) == (
            job,
            "chat_api",
            state,
            1,
            "answer",
        )
        assert "args" not in found
    waiting, delayed, retry = (operator.json("inspect", queues[state]) for state in ("waiting", "delayed", "retry"))
    assert (waiting["args_count"], waiting["kwargs_count"]) == (2, 1)
    assert 0 <= waiting["age"] < 60
    assert 3500 < delayed["due"] < 3600
    assert (retry["attempt"], retry["reason"], retry["error"]) == (2, "failed", "TimeoutError: no answer")
    processing, dead = (operator.json("inspect", queues[state]) for state in ("processing", "dead"))
    assert processing["worker"] == "worker1"
    assert 0 < processing["lease"] <= 60
    assert 0 <= dead["age"] < 60
    assert [dead[name] for name in ("due", "lease", "worker", "unreadable")] == [None] * 4


def test_inspect_in_words(operator: Operator, queues: dict[str, str]) -> None:
    text = operator.text("inspect", queues["delayed"], "-Q", "chat_api")
    assert "state     delayed, due in " in text
    assert "task      answer" in text
    assert "bytes; arguments: 0 positional, 0 named" in text
    assert "lease ends in" in operator.text("inspect", queues["processing"])


def test_arguments_are_shown_when_asked_for_and_never_a_secret(operator: Operator, stage: Stage) -> None:
    kwargs = {"token": "hunter2", "note": f"it is {TELEGRAM}", "deep": [{"api_key": "k"}], "raw": b"\x00\xff", "big": float("inf")}
    job = stage.waiting("mail", args=[1, "two\n", None], kwargs=kwargs)
    assert "two" not in operator.text("inspect", job)
    found = operator.json("inspect", job, "--show-args")
    assert found["args"] == [1, "two\n", None]
    assert found["kwargs"] == {
        "token": "***", "note": "it is ***", "deep": [{"api_key": "***"}], "raw": "<2 bytes>", "big": "inf",
    }  # fmt: skip
    assert '[1, "two\\n", null]' in operator.text("inspect", job, "--show-args")


def test_what_others_wrote_cannot_steer_a_terminal_or_forge_a_line(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    evil = f"\x1b]0;owned\x07\r\nForged: line \u202egnirts {TELEGRAM}"
    job = stage.dead("mail", text=evil)
    raw.hset("mail:messages", job, b"\x94\x01\xd9" + bytes([len(evil.encode())]) + evil.encode() + b"\x90\xc0")
    raw.zadd("mail:queue:dlq", {"\x1bid\n": 5})
    for command in (["inspect", job], ["dead", "show", job], ["dead", "list"]):
        text = operator.text(*command)
        assert "\nForged" not in text
        assert not any(character in text for character in "\r\x07\x1b\u202e")
        assert "\\x1b]0;owned\\x07" in text
        printed = operator.run(*command, "--json").stdout
        assert printed.isascii()
        assert printed.count("\n") == 1


def test_a_message_that_nobody_can_read_is_told_of(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    job = stage.waiting("mail")
    raw.hset("mail:messages", job, b"\x80\x04pickled")
    found = operator.json("inspect", job, "--show-args")
    assert (found["task"], found["args_count"]) == (None, None)
    assert "not" in found["unreadable"]
    assert "unreadable" in operator.text("inspect", job)


@pytest.mark.parametrize("score", ["inf", "-inf"])
def test_scores_and_ids_that_redisq_never_writes_are_no_error(
    score: str, operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    stage.waiting("mail")
    raw.zadd("mail:queue:main", {b"\xff\xfe": score, "odd": score})
    raw.zadd("mail:queue:dlq", {b"\xff": score})
    operator.json("status")
    operator.json("inspect", "odd")
    operator.json("dead", "list")
    assert operator.json("purge", "mail", "--yes")["removed"] == 3


@pytest.mark.parametrize("command", [("inspect",), ("cancel",), ("dead", "show")])
def test_a_job_that_is_nowhere_is_an_error(command: tuple[str, ...], operator: Operator, stage: Stage) -> None:
    assert "no job nowhere in any queue (there is none)" in operator.error(*command, "nowhere")
    stage.waiting("mail")
    assert "no job nowhere in mail: it is done, was removed, or never was" in operator.error(*command, "nowhere")


@pytest.mark.parametrize("name", ["a;rm -rf x", "../../etc", "a:b", "", "x" * 200, "\x1b[31m", "a\nb"])
def test_what_is_no_name_is_refused_in_one_line(name: str, operator: Operator, stage: Stage) -> None:
    stage.waiting("mail")
    for command in (["inspect", name], ["cancel", name], ["dead", "show", name], ["dead", "drop", name], ["purge", name]):
        assert "use 1 to 128 of the characters" in operator.error(*command)


@pytest.mark.parametrize(
    ("target", "says"), [("no;such..module:app", "no module 'no;such..module'"), ("../bot:app", "want module:app"), (".:a", "want")]
)
def test_what_is_no_app_is_refused_in_one_line(target: str, says: str, operator: Operator) -> None:
    assert says in operator.error("status", target)


def test_a_job_whose_result_is_kept_is_done(operator: Operator, stage: Stage) -> None:
    job = stage.settled("mail", "result", delay=60_000_000, reason="none", text="\xc0")
    assert operator.json("inspect", job) == {"id": job, "queue": "mail", "state": "done", "progress": None}
    assert "is done; its result is kept" in operator.text("inspect", job)
    assert f"job {job} of queue mail is done" in operator.error("cancel", job)
