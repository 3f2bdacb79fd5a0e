"""`redisq repair`, and what `status` and `doctor` say of a lost key; beside real workers, too."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration.operator import Operator, Stage
from tests.integration.processes import Ledger, WorkerProcess, wait_until
from tests.keyspace import everything

Start = Callable[..., WorkerProcess]
NOTHING = dict.fromkeys(
    ("config", "waiting", "processing", "dead", "needs", "tickets", "lanes", "gates", "slots", "bodiless", "in_turn"), 0
)


def findings(operator: Operator, *options: str, exit_code: int = 0) -> dict[str, tuple[str, str]]:
    found = operator.json("doctor", *options, exit_code=exit_code)["findings"]
    return {each["check"]: (each["level"], each["text"]) for each in found}


def test_it_shows_first_and_repairs_when_told(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    jobs = {stage.waiting("mail"), stage.waiting("mail")}
    stage.dead("chat_api")
    raw.delete("mail:queue:main")
    before = everything(raw)
    assert "mail: 2 messages in no state, a key was lost: redisq repair mail" in operator.text("status")
    assert operator.json("status")["queues"][1]["stateless"] == 2
    assert findings(operator, exit_code=2)["messages"] == (
        "error", "mail lost keys: 2 bodies in no state; run `redisq repair mail`"
    )  # fmt: skip
    text = operator.text("repair", "mail")
    assert text.splitlines() == [
        "2 messages in no state: back in the queue, to run now; due times are not known any more",
        "queue mail was not changed: --yes repairs it",
    ]
    assert operator.json("repair", "mail") == {"queue": "mail", "repaired": False, "lost": NOTHING | {"waiting": 2}}
    assert everything(raw) == before
    assert operator.text("repair", "mail", "--yes").endswith("queue mail is repaired\n")
    assert {each.decode() for each in raw.zrange("mail:queue:main", 0, -1)} == jobs
    assert operator.json("repair", "mail", "--yes") == {"queue": "mail", "repaired": True, "lost": NOTHING}
    assert operator.text("repair", "mail") == "queue mail has lost nothing\n"
    assert findings(operator)["messages"][0] == "ok"


def test_messages_without_a_body_are_said_before_a_worker_comes_to_them(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    dead = stage.dead("mail")
    jobs = [stage.waiting("mail"), stage.waiting("mail", countdown=60.0)]
    whole = stage.waiting("mail")
    raw.hdel("mail:messages", *jobs, dead)
    before = everything(raw)
    assert "mail: 3 messages without a body, which cannot run: redisq repair mail" in operator.text("status")
    assert operator.json("status")["queues"][0]["bodiless"] == 3
    assert findings(operator, exit_code=2)["messages"] == (
        "error",
        "mail has 3 messages without a body, which cannot run; run `redisq repair mail`, which makes them dead letters",
    )
    text = operator.text("repair", "mail")
    assert text.splitlines() == [
        "3 messages without a body, which cannot run: a dead letter with the reason body_missing",
        "queue mail was not changed: --yes repairs it",
    ]
    assert everything(raw) == before
    assert operator.json("repair", "mail", "--yes")["lost"] == NOTHING | {"bodiless": 3}
    assert {each["id"]: each["reason"] for each in operator.json("dead", "list", "-Q", "mail")["dead"]} == dict.fromkeys(
        [*jobs, dead], "body_missing"
    )
    assert operator.json("inspect", whole)["state"] == "waiting"
    assert operator.text("repair", "mail") == "queue mail has lost nothing\n"
    assert findings(operator)["messages"][0] == "ok"
    assert "without a body" not in operator.text("status")


def test_doctor_counts_in_a_large_queue_too(
    operator: Operator, stage: Stage, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not walked, so the lengths of its keys tell."""
    monkeypatch.setattr("redisq.broker.vitals._WALKED", 1)
    jobs = [stage.waiting("mail"), stage.waiting("mail")]
    raw.hdel("mail:messages", *jobs)
    assert "mail has 2 messages without a body" in findings(operator, exit_code=2)["messages"][1]


def test_a_lane_that_stops_for_a_dead_letter_is_left_to_workers(operator: Operator, producer: RedisQ, raw: redis.Redis) -> None:
    producer.tasks["short"].delay(1)
    job = raw.zrange("work:queue:main", 0, 0)[0]
    raw.hset("work:needs", job, "0 H @1")
    raw.hset("work:config", "gated", "1")
    raw.zadd("work:flow:@1", {job: 1})
    raw.zadd("work:run", {"~@1": 1})
    raw.hdel("work:messages", job)
    assert "1 message without a body in lanes that stop for a dead letter" in findings(operator, exit_code=2)["messages"][1]
    assert operator.text("repair", "work", "--yes").splitlines() == [
        "1 message without a body in a lane that stops for a dead letter: left there, a dead letter at its turn",
        "queue work has nothing to repair",
    ]
    assert raw.zrange("work:queue:main", 0, -1) == [job]


def test_status_of_nothing_but_a_queue_that_cannot_be_read_is_not_that_of_no_queues(
    operator: Operator, stage: Stage, raw: redis.Redis
) -> None:
    stage.waiting("mail")
    raw.delete("mail:config")
    text = operator.text("status", exit_code=1)
    assert "no queues" not in text
    assert "Error: QueueConflict: inspect on queue mail" in text


def test_a_lost_config_is_seen_and_rebuilt(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    job = stage.waiting("mail")
    stage.waiting("chat_api")
    raw.delete("mail:config")
    assert "run `redisq repair <queue>`" in operator.text("status", exit_code=1)
    assert findings(operator, exit_code=2)["messages"][1] == "mail lost keys: 1 config; run `redisq repair mail`"
    assert operator.error("inspect", job).endswith("; mail cannot be read: run `redisq doctor`\n")
    assert "the queue has lost its config" in operator.text("repair", "mail")
    operator.run("repair", "mail", "--yes")
    assert operator.json("inspect", job)["state"] == "waiting"
    assert [queue["queue"] for queue in operator.json("status")["queues"]] == ["chat_api", "mail"]


def test_keys_of_another_program_are_left_as_they_are(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    stage.waiting("mail")
    raw.zadd("theirs:queue:main", {"x": 1})
    raw.hset("others:messages", "x", "y")
    before = everything(raw)
    assert "another program wrote the rest" in operator.error("repair", "theirs", "--yes")
    assert "no queue 'nowhere' in this Redis; there is: mail" in operator.error("repair", "nowhere", "--yes")
    assert [queue["queue"] for queue in operator.json("status")["queues"]] == ["mail"]
    assert everything(raw) == before


def test_a_running_worker_goes_on_when_the_config_is_back(
    start_worker: Start, operator: Operator, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("-Q", "work").ready()
    operator.run("pause", "work")
    producer.tasks["short"].delay(1)
    raw.delete("work:config")
    worker.wait_for_log("run `redisq repair <queue>`")
    operator.run("repair", "work", "--yes")
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"], "it ran")


def test_a_running_worker_gets_what_was_lost(
    start_worker: Start, operator: Operator, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    for number in range(20):
        producer.tasks["short"].delay(number)
    raw.delete("work:queue:main")
    start_worker("-Q", "work").ready()
    assert operator.json("repair", "work", "--yes")["lost"]["waiting"] == 20
    wait_until(lambda: len(Ledger(tmp_path / "ledger").ends) == 20, "all ran")
    assert set(Ledger(tmp_path / "ledger").starts.values()) == {1}


@pytest.mark.parametrize("lives", [True, False], ids=["a living holder", "a dead holder"])
def test_what_runs_ends_and_what_died_runs_again(
    lives: bool, start_worker: Start, operator: Operator, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    """Beside the holder's own renewals, which restore the deadline as well."""
    worker = start_worker("-Q", "slow", BOT_LEASE="3").ready()
    job = producer.tasks["sleep_sync"].delay(1, 5.0 if lives else 60.0)
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"], "it runs")
    if not lives:
        worker.signal(signal.SIGKILL)
        worker.process.wait()
    raw.delete("slow:queue:processing")
    operator.run("repair", "slow", "--yes")
    assert raw.zscore("slow:queue:processing", job.id)
    if lives:
        wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"], "it ended")
        assert Ledger(tmp_path / "ledger").starts["1"] == 1
        return
    start_worker("-Q", "slow", BOT_LEASE="3").ready()
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["1"] == 2, "another worker took it over", 60)
