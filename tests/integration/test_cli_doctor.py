"""`redisq doctor`, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import redis

from redisq.app.waiting import run
from redisq.broker.commands import Command
from redisq.broker.connector import Connector
from redisq.broker.health import judge
from redisq.broker.queues import Steps, known_queues, server_time
from redisq.broker.vitals import Vitals, read_vitals
from redisq.errors import AccessDenied
from tests.integration.operator import Operator, Stage
from tests.integration.processes import WorkerProcess, wait_until
from tests.keyspace import everything
from tests.servers import RedisServer, free_port
from tests.wire import canned_server

T = TypeVar("T")


@pytest.fixture
def start_server() -> Iterator[Callable[..., RedisServer]]:
    started: list[RedisServer] = []

    def start(*options: str, append_only: bool = False) -> RedisServer:
        server = RedisServer(None, *options, append_only=append_only)
        while server.port + 10_000 > 65_535:  # where nodes of a Cluster talk
            server.port = free_port()
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.close()


def levels(found: Any) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in found["findings"]}


def test_a_server_that_is_set_up_well_is_well(start_server: Callable[..., RedisServer]) -> None:
    server = start_server("--maxmemory", "100mb", append_only=True)
    operator = Operator(server.url())
    found = operator.json("doctor", "--strict", "-Q", "chat_api")
    assert found["level"] == "ok"
    assert set(levels(found).values()) == {"ok"}
    with server.client() as client:
        assert client.dbsize() == 0, "looking changes nothing"


def test_it_changes_nothing_in_a_queue(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    stage.dead("mail")
    stage.processing("mail")
    before = everything(raw)
    operator.json("doctor")
    assert everything(raw) == before


def test_work_that_nobody_does_is_an_error(
    operator: Operator, stage: Stage, raw: redis.Redis, start_worker: Callable[..., WorkerProcess]
) -> None:
    job = stage.waiting("work", task="short", args=[1])
    assert levels(operator.json("doctor"))["work"] == "ok", "its worker may be about to start"
    raw.zadd("work:queue:main", {job: raw.zscore("work:queue:main", job) - 60_000_000})
    found = operator.json("doctor", exit_code=2)
    assert levels(found)["work"] == found["level"] == "error"
    (text,) = [each["text"] for each in found["findings"] if each["check"] == "work"]
    assert text.startswith("work: 1 waiting; the oldest for 6")
    assert text.endswith("no living worker serves it: start one with `redisq worker MODULE:APP -Q work`")
    operator.run("pause", "work")
    assert levels(operator.json("doctor"))["work"] == "ok", "somebody wants it to wait"
    start_worker("-Q", "work").ready()
    wait_until(lambda: operator.json("status")["queues"][0]["served"], "it shows a sign of life")
    operator.run("resume", "work")
    wait_until(lambda: not raw.exists("work:queue:main", "work:queue:processing"), "it ran")
    assert levels(operator.json("doctor"))["work"] == "ok"


def test_warnings_count_when_strict(operator: Operator, stage: Stage) -> None:
    stage.waiting("mail")
    found = operator.json("doctor")
    assert levels(found)["persistence"] == levels(found)["memory"] == found["level"] == "warning"
    operator.run("doctor", "--strict", exit_code=1)
    lines = operator.text("doctor").splitlines()
    assert lines[0].split() == ["level", "check", "finding"]
    assert any(line.startswith("warning  persistence   appendonly is no: all messages are lost") for line in lines)


def test_eviction_and_a_replica_are_errors(start_server: Callable[..., RedisServer]) -> None:
    server = start_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--replicaof", "127.0.0.1", str(free_port()))
    found = levels(Operator(server.url()).json("doctor", "-Q", "mail", exit_code=2))
    assert found["eviction"] == found["role"] == "error"


def test_a_cluster_node_behind_redis_is_an_error_that_says_so(start_server: Callable[..., RedisServer]) -> None:
    operator = Operator(start_server("--cluster-enabled", "yes").url())
    text = operator.text("doctor", exit_code=2)
    assert "cluster_enabled:1: this is a node of a Redis Cluster" in text
    assert levels(operator.json("doctor", exit_code=2)) == {"version": "ok", "cluster": "error", "installation": "ok"}


def test_redis_away_is_an_error() -> None:
    operator = Operator(f"redis://:hunter2@127.0.0.1:{free_port()}")
    operator.environment["REDIS_TIMEOUT"] = "0.2"
    found = operator.json("doctor", exit_code=2)
    assert levels(found) == {"server": "error", "installation": "ok"}
    assert found["findings"][0]["text"].startswith("BrokerUnavailable: ")
    assert "hunter2" not in str(found)


def test_a_wrong_password_is_an_error(start_server: Callable[..., RedisServer]) -> None:
    server = start_server()
    with server.client() as client:
        client.config_set("requirepass", "right")
    operator = Operator(server.url().replace("redis://", "redis://:wrong@"))
    assert "AccessDenied" in operator.text("doctor", exit_code=2)


@pytest.mark.parametrize("command", ["SUBSCRIBE", "PUBLISH"])
def test_a_user_who_may_not_use_the_channels_is_told_so(command: str, start_server: Callable[..., RedisServer]) -> None:
    """By its name: that an ACL forbids it is said in the same place, and there is none before Redis 6."""
    operator = Operator(start_server("--rename-command", command, "").url())
    found = operator.json("doctor", "-Q", "mail")
    assert levels(found)["channels"] == "warning"
    (text,) = [finding["text"] for finding in found["findings"] if finding["check"] == "channels"]
    assert text.endswith("allow &redisq:* &mail:*")


def test_queues_of_others_and_newer_layouts_are_errors(operator: Operator, stage: Stage, raw: redis.Redis) -> None:
    stage.waiting("mail")
    raw.hset("newer:config", "layout", "2")
    found = operator.json("doctor", exit_code=2)
    assert levels(found)["queues"] == "error"
    raw.delete("newer:config")
    raw.zadd("theirs:queue:main", {"x": 1})
    assert "another program wrote the rest" in operator.text("doctor", "-Q", "theirs", exit_code=2)


def test_the_queues_of_an_app_are_looked_at_before_they_are_used(operator: Operator, bot: str) -> None:
    found = operator.json("doctor", bot)
    assert {"check": "queues", "level": "ok", "text": "chat_api, mail"} in found["findings"]


def test_a_user_who_may_do_nothing_is_told_so() -> None:
    with canned_server(b"-NOPERM this user has no permissions to run the 'info' command") as port:
        text = Operator(f"redis://127.0.0.1:{port}").text("doctor", exit_code=2)
    assert "NOPERM" in text or "no permissions" in text


def forbidding(steps: Steps[T], connector: Connector, *forbidden: str) -> T:
    """Carry the steps out for a user whom the server forbids some commands, or keys."""
    error = AccessDenied("NOPERM this user has no permissions to run the command")
    try:
        step = next(steps)
        while True:
            if isinstance(step, Command):
                step = steps.send(connector.execute(step))
                continue
            results = connector.execute_many(step)
            step = steps.send(
                [error if {*command.args[:2]} & {*forbidden} else result for command, result in zip(step, results, strict=True)]
            )
    except StopIteration as stop:
        result: T = stop.value
        return result


def test_what_a_user_may_not_do_is_named(stage: Stage) -> None:
    stage.waiting("mail")
    steps = read_vitals({}, [stage.app.keys("mail")])
    vitals = forbidding(steps, stage.app.connector, "ZREM", "SCRIPT", "CONFIG", "BZPOPMIN")
    assert set(vitals.denied) == {"ZREM", "BZPOPMIN"}
    assert vitals.config == {}
    found = {finding.check: finding for finding in judge(vitals)}
    assert found["rights"].level == "error"
    assert "may not run ZREM, BZPOPMIN" in found["rights"].text
    assert "no permissions" in found["rights"].text
    assert found["scripts"].level == "ok"
    assert "may not run SCRIPT LOAD" in found["scripts"].text


def test_queues_that_a_user_may_not_read_are_passed_over_as_long_as_there_are_others(stage: Stage) -> None:
    for queue in ("mail", "secret"):
        stage.waiting(queue)
    mail, secret = "mail:config", "secret:config"
    assert forbidding(known_queues(), stage.app.connector, secret) == [stage.app.keys("mail")]
    with pytest.raises(AccessDenied):
        forbidding(known_queues(), stage.app.connector, mail, secret)


def test_the_clocks_are_compared(stage: Stage) -> None:
    server = stage.app.connector.execute(server_time())
    vitals: Vitals = run(read_vitals({}, [], now=lambda: server - 100), stage.app.connector)
    assert 100 <= vitals.clock_ahead < 110


@pytest.mark.parametrize(
    ("channels", "level"),
    [
        (("&redisq:control@0", "&redisq:reply:*", "&chat_api:done:*"), "ok"),
        (("&redisq:control@*", "&redisq:reply:*", "&chat_api:done:*"), "ok"),
        (("&redisq:control", "&redisq:control@1", "&redisq:reply:*", "&chat_api:done:*"), "warning"),
        (("&redisq:control@0", "&chat_api:done:*"), "warning"),
    ],
)
def test_channels_are_tried_under_the_names_that_workers_use(
    start_server: Callable[..., RedisServer], channels: tuple[str, ...], level: str
) -> None:
    server = start_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "bot", "on", ">pw", "~*", "+@all", "resetchannels", *channels)
    operator = Operator(f"redis://bot:pw@127.0.0.1:{server.port}")
    assert levels(operator.json("doctor", "-Q", "chat_api"))["channels"] == level
