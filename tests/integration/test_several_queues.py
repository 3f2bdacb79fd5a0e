"""`-Q a,b,c`: in this order, but none starves, and never more leases than slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
SLOTS = 4
QUEUES = ("work", "more", "slow")


@pytest.fixture
def full_queue(producer: RedisQ, raw: redis.Redis) -> Iterator[None]:
    """The queue `work` is never empty."""
    stop = threading.Event()

    def fill() -> None:
        numbers = iter(range(1000, 10_000_000))
        while not stop.is_set():
            if raw.zcard("work:queue:main") < 1000:
                producer.tasks["short"].delay_many([(next(numbers),) for _ in range(1000)])
            stop.wait(0.02)

    thread = threading.Thread(target=fill)
    thread.start()
    wait_until(lambda: raw.zcard("work:queue:main") > 0, "filled")
    yield
    stop.set()
    thread.join()


def leases(raw: redis.Redis) -> int:
    with raw.pipeline(transaction=True) as pipe:
        for queue in QUEUES:
            pipe.zcard(f"{queue}:queue:processing")
        return sum(pipe.execute())


@pytest.mark.usefixtures("full_queue")
def test_the_last_queue_is_served_while_the_first_is_full(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker("-Q", ",".join(QUEUES), "-c", str(SLOTS)).ready()
    seen = 0
    for number in range(3):
        # A while after it was last found empty, too.
        producer.tasks["sleep"].delay(number, 0.0)

        def started(number: int = number) -> bool:
            nonlocal seen
            seen = max(seen, leases(raw))
            return Ledger(tmp_path / "ledger").ends[str(number)] > 0

        wait_until(started, f"message {number} of the last queue", 5)
        assert raw.zcard("work:queue:main") > 0, "the first queue was full all the time"
    assert 0 < seen <= SLOTS


def test_the_last_queue_is_served_while_the_threads_have_no_room_for_the_first(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    for number in range(3):
        producer.send("hold", (number, str(held)), queue="slow")
    for number in range(100):
        producer.send("sleep", (f"work{number}", 0.1), queue="work")
    start_worker("-Q", "slow,work,more", "-c", "1", "-t", "1").ready()
    for name in ("first", "second", "third"):
        producer.send("sleep", (name, 0.0), queue="more")
        wait_until(lambda name=name: Ledger(tmp_path / "ledger").ends[name], f"the {name} message of the last queue ended", 4)
    assert raw.zcard("work:queue:main") > 0
    assert raw.zcard("slow:queue:main") == 2
    held.unlink()


def test_what_has_room_in_the_first_queue_does_not_wait_for_a_look_into_the_last(
    start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    start_worker("-Q", "slow,work,more", "-c", "1", "-t", "1").ready()
    producer.send("hold", (0, str(held)), queue="slow")
    wait_until(lambda: Ledger(tmp_path / "ledger").starts["0"], "the thread is busy")
    for number, queue in enumerate(("slow", "more"), start=1):
        producer.send("hold", (number, str(held)), queue=queue)
    producer.tasks["sleep"].options(queue="work").delay_many([(f"work{number}", 0.05) for number in range(1000)])
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) > 10, "the second queue keeps the loop busy")
    delays = []
    for number in range(7):
        sent = time.time()
        producer.send("sleep", (f"first{number}", 0.0), queue="slow")
        wait_until(lambda number=number: Ledger(tmp_path / "ledger").starts[f"first{number}"], "it began", 10)
        delays.append(Ledger(tmp_path / "ledger").times["S", f"first{number}"] - sent)
    assert raw.zcard("work:queue:main") > 0
    assert sorted(delays)[len(delays) // 2] < 0.5, delays
    held.unlink()


def test_of_two_full_queues_the_first_gets_most(start_worker: Start, producer: RedisQ, raw: redis.Redis, tmp_path: Path) -> None:
    for number in range(20):
        producer.send("sleep", (f"first{number}", 0.35), queue="work")
        producer.send("sleep", (f"last{number}", 0.35), queue="slow")
    start_worker("-Q", "work,slow", "-c", "1").ready()
    wait_until(lambda: len(Ledger(tmp_path / "ledger").starts) >= 12, "twelve started", 30)
    order = list(Ledger(tmp_path / "ledger").starts)[:12]
    last = [label for label in order if label.startswith("last")]
    assert 2 <= len(last) <= 4, order
    assert order[0] == "first0"


def test_many_idle_queues_cost_redis_one_script_a_second(
    start_worker: Start, raw: redis.Redis, tmp_path: Path, producer: RedisQ
) -> None:
    queues = [f"idle{number}" for number in range(200)]
    start_worker("-Q", ",".join([*queues, "work"])).ready()

    def calls() -> int:
        return int(raw.info("commandstats")["cmdstat_evalsha"]["calls"])

    def seconds() -> float:
        second, micro = raw.time()
        return second + micro / 1_000_000

    producer.tasks["short"].delay(1)
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"], "it serves the last queue")
    began, before = seconds(), calls()
    wait_until(lambda: seconds() >= began + 4, "some seconds have passed")
    # Besides its looks: signs of life.
    assert (calls() - before) / (seconds() - began) <= 2
    producer.tasks["short"].delay(2)
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["2"], "it is as quick as ever", 1)


def test_a_message_whose_hint_was_lost_is_found(start_worker: Start, raw: redis.Redis, tmp_path: Path, producer: RedisQ) -> None:
    start_worker("-Q", ",".join(QUEUES)).ready()
    with raw.pipeline() as pipe:
        pipe.watch("more:wake")
        producer.send("short", (1,), queue="more")
        raw.delete("more:wake")
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1"], "found", 5)
