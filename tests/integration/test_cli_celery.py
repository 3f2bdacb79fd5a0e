"""The commands of an operator on a Redis that Celery works with: its own ids, workers and queues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import pytest
import redis

from tests.integration.kombu_client import Connect, get, publish
from tests.integration.operator import Operator
from tests.integration.processes import wait_until

ID = "5f0c1f4e-6f0e-4a53-9c15-0c3d7a5b9d11"


def send(connection: kombu.Connection, ident: str = ID, queue: str = "celery", **options: Any) -> None:
    headers = {"task": "app.add", "id": ident, "root_id": ident, "argsrepr": "(1, 2)"}
    publish(connection, [[1, 2], {}, {}], queue, headers=headers, correlation_id=ident, **options)


@pytest.mark.parametrize("ident", [ID, "report:5/ä b", "x" * 200])
def test_a_task_of_celery_is_found_by_its_id(connect: Connect, operator: Operator, ident: str) -> None:
    connection = connect()
    for number in range(300):
        send(connection, f"other-{number}", "mail")
    send(connection, ident)
    found = operator.json("inspect", ident)
    assert (found["celery_id"], found["queue"], found["state"], found["task"]) == (ident[:128], "celery", "waiting", "app.add") or (
        len(ident) > 128 and found["celery_id"].startswith(ident[:127])
    )
    assert operator.json("inspect", found["id"])["celery_id"] == found["celery_id"]
    assert ident[:100] in operator.text("inspect", ident)


def test_a_message_that_only_mentions_an_id_is_not_taken_for_its_task(connect: Connect, operator: Operator) -> None:
    headers = {"task": "app.add", "id": "child", "root_id": ID, "parent_id": ID}
    publish(connect(), [[], {}, {}], "celery", headers=headers)
    assert f"no job {ID} in celery" in operator.error("inspect", ID)
    assert "no job" in operator.error("cancel", ID)


def test_inspect_does_not_count_the_arguments_of_a_celery_task(connect: Connect, operator: Operator) -> None:
    send(connect())
    found = operator.json("inspect", ID)
    assert (found["args_count"], found["kwargs_count"]) == (None, None)
    text = operator.text("inspect", ID)
    assert " bytes" in text
    assert "named arguments" not in text


def test_error_for_an_unknown_job_names_only_queues_that_a_user_knows(connect: Connect, operator: Operator) -> None:
    connection = connect()
    for queue in ("celery", "celery@host.celery.pidbox", "celeryev.0"):
        send(connection, "other", queue)
    assert operator.error("inspect", ID).endswith(f"no job {ID} in celery: it is done, was removed, or never was\n")
    for number in range(20):
        send(connection, "other", f"queue-{number}")
    assert f"no job {ID} in any of 21 queues: " in operator.error("inspect", ID)


def test_a_task_that_waits_is_cancelled_without_any_worker(connect: Connect, operator: Operator, raw: redis.Redis) -> None:
    connection = connect()
    send(connection)
    send(connection, headers_eta := "later", "celery")
    assert operator.json("cancel", ID) == {"id": ID, "queue": "celery", "cancelled": True}
    assert raw.hlen("celery:messages") == 1
    assert get(connection, "celery").headers["id"] == headers_eta
    assert "no job" in operator.error("cancel", ID)


def test_all_messages_of_a_task_that_is_being_retried_are_cancelled(connect: Connect, operator: Operator, raw: redis.Redis) -> None:
    connection = connect()
    send(connection)
    run = get(connection, "celery")
    send(connection)  # the retry is sent while the run is not acknowledged yet
    assert f"celery control revoke --terminate {ID}" in operator.text("cancel", ID)
    assert raw.zcard("celery:queue:main") == 0
    run.requeue()
    assert raw.hlen("celery:messages") == 0


def test_dead_letters_of_celery_are_listed_shown_replayed_and_dropped_by_its_ids(
    connect: Connect, operator: Operator, raw: redis.Redis
) -> None:
    connection = connect()
    for ident in (ID, "second"):
        send(connection, ident)
        get(connection, "celery").reject()
    assert [letter["celery_id"] for letter in operator.json("dead", "list")["dead"]] == [ID, "second"]
    assert ID in operator.text("dead", "list")
    assert operator.json("dead", "show", ID)["reason"] == "rejected"
    assert operator.json("dead", "replay", ID) == {"replayed": 1, "missing": [], "held": {}}
    assert operator.json("dead", "drop", "second") == {"dropped": 1, "missing": []}
    assert (raw.zcard("celery:queue:main"), raw.zcard("celery:queue:dlq")) == (1, 0)


@contextmanager
def consuming(connection: kombu.Connection, *queues: kombu.Queue) -> Iterator[None]:
    with connection.Consumer(queues, callbacks=[lambda *_: None]):
        yield


def pidbox(node: str) -> kombu.Queue:
    return kombu.Queue(f"{node}.celery.pidbox", kombu.Exchange("celery.pidbox", type="fanout"), auto_delete=True, expires=10)


def test_workers_of_celery_are_listed_while_they_are_there(connect: Connect, operator: Operator) -> None:
    worker, consumer, waiter = connect(), connect(global_keyprefix=""), connect()

    def listed() -> dict[str, Any]:
        found: dict[str, Any] = operator.json("workers")
        return found

    with consuming(waiter, kombu.Queue("reply", auto_delete=True, expires=60)):
        with consuming(consumer, kombu.Queue("plain")):
            wait_until(lambda: len(listed()) == 1, "the consumer is listed")
            ((name, about),) = listed().items()
            assert (name[:6], about["app"], about["queues"]) == ("kombu-", "kombu", ["plain"])
        consumer.close()
        assert listed() == {}
        with consuming(worker, kombu.Queue("celery"), kombu.Queue("a b"), pidbox("celery@box.local")):
            wait_until(lambda: "celery@box.local" in listed(), "the worker is listed")
            about = listed()["celery@box.local"]
            assert (about["app"], about["queues"], about["answers"], about["kombu"]) == ("celery", ["a%20b", "celery"], None, True)
            assert "celery@box.local  celery  pid" in operator.text("workers", "--running")
        worker.close()
        assert listed() == {}


def test_a_worker_with_a_connection_of_its_own_for_remote_control_is_one_worker(connect: Connect, operator: Operator) -> None:
    with consuming(connect(), kombu.Queue("celery")), consuming(connect(), pidbox("green@box")):
        wait_until(
            lambda: {name: about["queues"] for name, about in operator.json("workers").items()} == {"green@box": ["celery"]}, "one"
        )


def test_status_hides_what_celery_makes_for_itself_unless_asked(connect: Connect, operator: Operator) -> None:
    connection = connect()
    for queue in ("celery", "c0ffee.reply.celery.pidbox", "celeryev.1-2"):
        send(connection, queue=queue)

    def names(*options: str) -> list[str]:
        return [each["queue"] for each in operator.json("status", *options)["queues"]]

    assert names() == ["celery"]
    assert names("--all") == ["c0ffee.reply.celery.pidbox", "celery", "celeryev.1-2"]
    assert names("-Q", "celeryev.1-2") == ["celeryev.1-2"]
    assert "2 queues of Celery's remote control and events not shown (--all)" in operator.text("status")


def test_doctor_hides_what_celery_makes_for_itself_unless_asked(connect: Connect, operator: Operator, raw: redis.Redis) -> None:
    connection = connect()
    for queue in ("celery", "c0ffee.reply.celery.pidbox", "celeryev.1-2"):
        send(connection, queue=queue)

    def said(*options: str, exit_code: int = 0) -> str:
        (text,) = [
            each["text"] for each in operator.json("doctor", *options, exit_code=exit_code)["findings"] if each["check"] == "queues"
        ]
        return str(text)

    assert said() == "celery; 2 queues of Celery's remote control and events not shown (--all)"
    assert said("--all") == "c0ffee.reply.celery.pidbox, celery, celeryev.1-2"
    assert said("-Q", "celeryev.1-2") == "celeryev.1-2"
    error = operator.error("purge", "celary", "--yes")
    assert "no queue 'celary' in this Redis" in error
    assert "pidbox" not in error
    raw.set("celeryev.1-2:queue:main", "another program's")
    assert "celeryev.1-2" in said(exit_code=2), "what is wrong is named"
