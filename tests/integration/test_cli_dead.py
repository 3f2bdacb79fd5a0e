"""`redisq dead`, `purge`, `cancel` and `send`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from redisq.broker import commands, sweep
from redisq.broker.commands import MAX_BATCH
from redisq.broker.queues import Steps
from tests.integration.operator import TELEGRAM, Operator, Stage


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps go on after a full batch; three messages fill one here."""
    monkeypatch.setattr(sweep, "MAX_BATCH", 3)


def dead_ids(raw: redis.Redis, queue: str) -> list[str]:
    return [each.decode() for each in raw.zrange(f"{queue}:queue:dlq", 0, -1)]


def carry_out(stage: Stage, steps: Steps[Any], meanwhile: Callable[[], object]) -> Any:
    """Carry out a sweep; something happens after each of its calls. It must have an end all the same."""
    with pytest.raises(StopIteration) as end:  # noqa: PT012 - the generator's return
        step = next(steps)
        for _ in range(50):
            reply = stage.app.connector.execute(step)
            meanwhile()
            step = steps.send(reply)
    return end.value.value


def test_the_list_shows_the_oldest_first_and_what_went_wrong(operator: Operator, stage: Stage) -> None:
    assert operator.text("dead", "list") == "0 dead letters\n"
    jobs = [stage.dead("mail", text=f"ValueError: {number} of {TELEGRAM}") for number in range(3)]
    found = operator.json("dead", "list")
    assert found["total"] == 3
    assert [letter["id"] for letter in found["dead"]] == jobs
    assert [letter["error"] for letter in found["dead"]] == [f"ValueError: {number} of ***" for number in range(3)]
    first = found["dead"][0]
    assert (first["queue"], first["task"], first["attempt"], first["crashes"], first["reason"]) == (
        "mail",
        "answer",
        1,
        0,
        "failed",
    )
    assert 0 <= first["age"] < 60
    lines = operator.text("dead", "list").splitlines()
    assert lines[0].split()[:4] == ["job", "queue", "task", "attempt"]
    assert lines[1].startswith(f"{jobs[0]}  mail")
    assert lines[-1] == "3 dead letters"


def test_a_long_list_is_paged_over_all_queues(operator: Operator, stage: Stage) -> None:
    jobs = [stage.dead(queue) for queue in ("a", "a", "a", "b", "b")]
    for offset in range(6):
        for limit in (1, 2, 9):
            found = operator.json("dead", "list", "--offset", str(offset), "--limit", str(limit))
            assert found["total"] == 5
            assert [letter["id"] for letter in found["dead"]] == jobs[offset : offset + limit]
    assert "5 dead letters, 3 to 4 shown" in operator.text("dead", "list", "--offset", "2", "--limit", "2")


def test_one_is_shown_and_only_if_it_is_dead(operator: Operator, stage: Stage) -> None:
    job = stage.dead("mail", args=[f"to {TELEGRAM}"])
    assert operator.json("dead", "show", job)["state"] == "dead"
    assert operator.json("dead", "show", job, "--show-args")["args"] == ["to ***"]
    assert "ValueError: no" in operator.text("dead", "show", job)
    waits = stage.waiting("mail")
    assert f"job {waits} of queue mail is no dead letter: it is waiting" in operator.error("dead", "show", waits)


def test_named_ones_are_replayed(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    first, second, third = (stage.dead(queue) for queue in ("a", "a", "b"))
    assert operator.json("dead", "replay", first, third, first) == {"replayed": 2, "missing": [], "held": {}}
    assert (dead_ids(raw, "a"), dead_ids(raw, "b")) == ([second], [])
    assert raw.zcard("a:queue:main") == raw.zcard("b:queue:main") == 1
    text = operator.text("dead", "replay", second, "nowhere", exit_code=1)
    assert "replayed 1 dead letter\n" in text
    assert "Error: job nowhere is no dead letter: see `redisq inspect nowhere`\n" in text


def test_named_ones_are_dropped(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    first, second = stage.dead("a"), stage.dead("a")
    waits = stage.waiting("a")
    assert operator.json("dead", "drop", first, waits, exit_code=1) == {"dropped": 1, "missing": [waits]}
    assert dead_ids(raw, "a") == [second]
    assert raw.hget("a:stats", "dropped") == b"1"
    assert raw.zcard("a:queue:main") == 1


@pytest.mark.parametrize(("verb", "done"), [("replay", "replayed"), ("drop", "dropped")])
def test_all_are_decided_on_in_batches_when_the_answer_is_yes(
    verb: str, done: str, operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    for _ in range(8):
        stage.dead("a")
    stage.dead("b")
    text = operator.text("dead", verb, "--all", exit_code=1, typed="n\n")
    assert f"{verb.capitalize()} 9 dead letters of a, b? [y/N]" in text
    assert "Aborted" in operator.text("dead", verb, "--all", exit_code=1, typed="")
    assert len(dead_ids(raw, "a")) == 8
    assert f"{done} 1 dead letter\n" in operator.text("dead", verb, "--all", "-Q", "b", typed="y\n")
    more: dict[str, object] = {"held": {}} if verb == "replay" else {}
    assert operator.json("dead", verb, "--all", "--yes") == {done: 8, "missing": [], **more}
    assert raw.hget("a:stats", done) == b"8"
    assert raw.zcard("a:queue:dlq") == 0
    assert raw.zcard("a:queue:main") == (8 if verb == "replay" else 0)
    assert operator.json("dead", verb, "--all") == {done: 0, "missing": [], **more}, "nothing to ask about"


def test_dead_letters_without_a_body_do_not_stop_a_replay(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    jobs = [stage.dead("a") for _ in range(8)]
    raw.hdel("a:messages", *jobs[:4])
    assert operator.json("dead", "replay", "--all", "--yes")["replayed"] == 4
    assert dead_ids(raw, "a") == jobs[:4]


def test_those_that_die_during_a_replay_are_not_replayed_again(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    for _ in range(7):
        stage.dead("a")
    assert carry_out(stage, sweep.replay_all(stage.app.keys("a")), lambda: stage.dead("a")) == (7, {})


def test_a_letter_whose_dedupe_key_another_job_has_stays_dead_unless_forced(
    operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    held, free = (stage.dead("a", dedupe_key=key) for key in ("1", "2"))
    owner = stage.waiting("a", dedupe_key="1")
    text = operator.text("dead", "replay", held, exit_code=1)
    assert "replayed 0 dead letters\n" in text
    assert f"Error: job {held} stays dead: job {owner} has its dedupe key; --force runs both\n" in text
    answer = operator.json("dead", "replay", "--all", "--yes", exit_code=1)
    assert answer == {"replayed": 1, "missing": [], "held": {held: owner}}
    assert dead_ids(raw, "a") == [held]
    assert operator.json("dead", "replay", held, "--force") == {"replayed": 1, "missing": [], "held": {}}
    assert raw.zcard("a:queue:main") == 3
    assert raw.get("a:dedupe:answer:2") == f"{free} 0".encode()


@pytest.mark.parametrize("arguments", [("replay",), ("drop",), ("replay", "job", "--all"), ("drop", "job", "--all")])
def test_jobs_or_all_must_be_said_and_not_both(arguments: tuple[str, ...], operator: Operator) -> None:
    assert "which dead letters? Name jobs, or say --all" in operator.text("dead", *arguments, exit_code=2)


def test_purge_asks_and_tells_how_many_it_removed(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    dead, running = stage.dead("mail"), stage.processing("mail")
    stage.settled("mail", "retry", delay=60_000_000)
    for _ in range(7):
        stage.waiting("mail")
    stage.waiting("mail", countdown=60)
    text = operator.text("purge", "mail", exit_code=1, typed="n\n")
    assert "Delete 9 messages (7 waiting, 1 delayed, 1 retry) of queue mail? [y/N]" in text
    assert raw.zcard("mail:queue:main") == 7
    assert operator.json("purge", "mail", "--state", "delayed", "--yes") == {"queue": "mail", "states": ["delayed"], "removed": 1}
    assert operator.text("purge", "mail", "--yes") == "removed 8 messages from queue mail\n"
    assert {each.decode() for each in raw.hkeys("mail:messages")} == {dead, running}
    assert operator.json("purge", "mail", "--state", "waiting,dead", "--yes")["removed"] == 1
    assert operator.json("purge", "mail")["removed"] == 0, "nothing to ask about"
    assert raw.hget("mail:stats", "purged") == b"10"


def test_purge_never_takes_what_a_worker_has(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    text = operator.text("purge", "mail", "--state", "processing", "--yes", exit_code=2)
    assert "want some of waiting, delayed, retry, dead" in text
    jobs = [stage.waiting("mail") for _ in range(7)]
    taken: list[str] = []

    def take_one() -> None:
        claim = commands.claim(stage.app.keys("mail"), worker="w", limit=1, lease=60_000_000, max_crashes=3)
        taken.extend(delivery.id for delivery in stage.app.connector.execute(claim).deliveries)

    removed = carry_out(stage, sweep.remove_all(stage.app.keys("mail"), ("waiting",), "purged"), take_one)
    assert removed == 7 - len(taken)
    assert 0 < len(taken) < 7
    assert {each.decode() for each in raw.zrange("mail:queue:processing", 0, -1)} == set(taken) < set(jobs)


def test_purge_of_an_unknown_or_foreign_queue_is_an_error(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    assert "no queue 'nowhere'" in operator.error("purge", "nowhere", "--yes")
    raw.zadd("theirs:queue:main", {"x": 1})
    assert "another program wrote the rest" in operator.error("purge", "theirs", "--yes")
    assert raw.zcard("theirs:queue:main") == 1


def test_a_waiting_job_is_cancelled(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    first, second = stage.waiting("mail"), stage.waiting("mail", countdown=60)
    assert operator.json("cancel", first) == {"id": first, "queue": "mail", "cancelled": True}
    assert operator.text("cancel", second, "-Q", "mail") == f"cancelled job {second} of queue mail\n"
    assert raw.hget("mail:stats", "cancelled") == b"2"
    assert "no job" in operator.error("cancel", first)


def test_what_does_not_wait_or_run_is_not_cancelled_and_it_is_said_why(operator: Operator, stage: Stage) -> None:
    dead = stage.dead("mail")
    assert "it is dead; `redisq dead drop` removes it" in operator.error("cancel", dead)


def test_what_runs_is_cancelled_also_when_its_worker_does_not_hear_of_it(
    operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    running = stage.processing("mail")
    assert operator.text("cancel", running) == f"cancelled job {running} of queue mail\n"
    assert raw.hget("mail:leases", running).endswith(b" cancel")
    assert operator.json("inspect", running)["state"] == "processing"


def test_a_job_whose_lease_has_no_record_cannot_be_cancelled(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    running = stage.processing("mail", worker="host\x1b[31m.1")
    place = raw.hget("mail:leases", running)
    raw.hset("mail:leases", running, place.replace(b" ", b"  ", 1))
    assert f"job {running} of queue mail could not be cancelled: it is processing" in operator.error("cancel", running)


def test_send_by_name_needs_no_code_of_the_task(operator: Operator, stage: Stage) -> None:
    sent = operator.json("send", "hello", "-Q", "mail", "--args", '[1, "x"]', "--kwargs", '{"y": null}', "--countdown", "60")
    assert (sent["task"], sent["queue"]) == ("hello", "mail")
    found = operator.json("inspect", sent["id"], "--show-args")
    assert (found["state"], found["task"], found["args"], found["kwargs"]) == ("delayed", "hello", [1, "x"], {"y": None})
    job = operator.text("send", "hello", "-Q", "mail", "--priority", "9").strip()
    assert operator.json("inspect", job)["state"] == "waiting"


def test_send_with_an_app_uses_its_queue_and_checks_its_signature(operator: Operator, stage: Stage, bot: str) -> None:
    sent = operator.json("send", "answer", "-A", bot, "--args", '[42, "hi"]')
    assert sent["queue"] == "chat_api"
    assert operator.json("send", "answer", "-A", bot, "--args", '[42, "hi"]', "-Q", "other")["queue"] == "other"
    assert operator.json("send", "unknown", "-A", bot, "-Q", "other")["task"] == "unknown"
    assert "ArgumentsError: task answer" in operator.error("send", "answer", "-A", bot, "--args", "[42]")
    assert "UnknownTask: app bot_logic has no task 'anwser'" in operator.error("send", "anwser", "-A", bot)


def test_send_through_an_app_goes_where_the_command_line_says(
    operator: Operator, bot: str, redis_url: str, raw: redis.Redis
) -> None:
    operator.environment["REDISQ_URL"] = "redis://127.0.0.1:1"
    operator.run("send", "mail", "-A", bot, "--url", redis_url, "--namespace", "prod", "--args", '["you"]')
    assert raw.zcard("prod:mail:queue:main") == 1


@pytest.mark.parametrize(
    ("arguments", "says", "exit_code"),
    [
        (["hello"], "which queue? Name one with -Q", 2),
        (["hello", "-Q", "mail", "--args", f"[{TELEGRAM}"], "not JSON", 2),
        (["hello", "-Q", "mail", "--args", "{}"], "want a JSON array", 2),
        (["hello", "-Q", "mail", "--args", "[" * 100_000], "nested too deep", 2),
        (["hello", "-Q", "mail", "--kwargs", "[]"], "want a JSON object", 2),
        (["hello", "-Q", "mail", "--args", "[1e999999999999999999999]", "--countdown", "-1"], "countdown=-1.0", 1),
        (["hello", "-Q", "mail", "--args", f"[{2**70}]"], "EncodeError: task hello", 1),
        (["hello", "-Q", "mail", "--priority", "300"], "want a whole number from 0 to 255", 1),
        (["hello", "-Q", "a;b"], "queue 'a;b'", 1),
        (["a;b", "-Q", "mail"], "task 'a;b'", 1),
    ],
)
def test_what_cannot_be_sent_is_an_error_without_the_arguments(
    arguments: list[str], says: str, exit_code: int, operator: Operator, raw: redis.Redis
) -> None:
    assert says in operator.text("send", *arguments, exit_code=exit_code)
    assert raw.dbsize() == 0


def test_a_batch_is_what_a_script_takes_at_most() -> None:
    assert MAX_BATCH == 1000


def test_a_dead_letter_whose_id_is_not_utf8_is_shown_and_dropped(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    job = stage.dead("mail")
    raw.hset("mail:messages", b"caf\xe9", b"body")
    raw.zadd("mail:queue:dlq", {b"caf\xe9": 1})
    assert "caf\\udce9" in operator.text("dead", "list")
    assert [letter["id"] for letter in operator.json("dead", "list")["dead"]] == ["caf\\udce9", job]
    operator.text("dead", "drop", "--all", "--yes")
    assert dead_ids(raw, "mail") == []
