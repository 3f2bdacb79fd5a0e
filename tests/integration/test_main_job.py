"""The main job: one process calls, another answers, over a real Redis and a real HTTP chat API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import redis

from redisq import RedisQ
from tests.integration.processes import Ledger, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


def test_calls_are_answered_and_the_stats_tell_the_truth(
    start_worker: Start, producer: RedisQ, chat_api: str, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker(CHAT_API=chat_api).ready()
    answer, answer_sync = producer.tasks["answer"], producer.tasks["answer_sync"]
    answer.delay(1, "hi")
    answer_sync.delay(2, "hello")

    async def many() -> None:
        await answer.adelay_many([(chat, "many") for chat in range(100)])
        await answer.adelay_many([{"chat_id": 1000, "text": "named"}])
        await producer.aclose()

    asyncio.run(many())
    wait_until(lambda: raw.hget("chat_api:stats", "processed_requests") == b"103", "103 calls processed")
    ends = Ledger(tmp_path / "ledger").ends
    assert ends["1:re:hi"] == ends["2:re:hello"] == ends["1000:re:named"] == 1
    assert all(ends[f"{chat}:re:many"] == 1 for chat in range(100))
    stats = {name.decode(): int(value) for name, value in raw.hgetall("chat_api:stats").items()}
    assert stats.pop("run_time_us") > 0
    assert stats == {"total_messages": 103, "processed_requests": 103}
    assert [raw.zcard(f"chat_api:queue:{name}") for name in ("main", "delayed", "retry", "processing", "dlq")] == [0] * 5


def test_a_failing_call_is_retried_after_its_backoff_and_ends_as_a_dead_letter(
    start_worker: Start, producer: RedisQ, chat_api: str, raw: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker(CHAT_API=chat_api).ready()
    job = producer.tasks["answer"].delay(7, "bad:question")
    wait_until(lambda: raw.zcard("chat_api:queue:dlq") == 1, "a dead letter")
    assert Ledger(tmp_path / "ledger").starts["7:bad:question"] == 3
    assert raw.hget("chat_api:stats", "retry_count") == b"2"
    assert raw.hget("chat_api:stats", "dlq_messages") == b"1"
    assert b"reason=exhausted" in raw.hget("chat_api:meta", job.id)
    assert b"HTTP Error 500" in raw.hget("chat_api:meta", job.id)
    assert raw.hexists("chat_api:messages", job.id), "the dead letter keeps its message"
    worker.wait_for_log(r"a dead letter now \(exhausted\)")


def test_a_delayed_call_runs_when_it_is_due_and_not_before(
    start_worker: Start, producer: RedisQ, chat_api: str, raw: redis.Redis, tmp_path: Path
) -> None:
    start_worker(CHAT_API=chat_api).ready()
    due = time.time() + 1.2
    producer.tasks["answer"].options(countdown=1.2).delay(1, "later")
    assert raw.zcard("chat_api:queue:delayed") == 1
    wait_until(lambda: Ledger(tmp_path / "ledger").ends["1:re:later"], "the delayed call ran")
    assert due <= Ledger(tmp_path / "ledger").times["S", "1:later"] < due + 1


def test_the_log_lines_that_operators_wait_for(start_worker: Start) -> None:
    worker = start_worker("-Q", "chat_api,work").ready()
    assert "INFO - Initialized Redis connection\n" in worker.text()
    assert "INFO - Started chat API queue processor\n" in worker.text()
    assert "INFO - Started work queue processor\n" in worker.text()


def test_a_burst_ends_when_the_queue_is_empty(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    producer.tasks["short"].delay_many([(number,) for number in range(300)])
    worker = start_worker("-b", "-Q", "work")
    assert worker.wait() == 0
    assert raw.hget("work:stats", "processed_requests") == b"300"


def test_several_queues_are_all_served(start_worker: Start, producer: RedisQ, raw: redis.Redis, chat_api: str) -> None:
    start_worker("-Q", "work", "-Q", "chat_api", CHAT_API=chat_api).ready()
    for number in range(5):
        producer.tasks["short"].delay(number)
        producer.tasks["answer"].delay(number, "hi")
        wait_until(
            lambda wanted=b"%d" % (number + 1): (
                raw.hget("work:stats", "processed_requests") == raw.hget("chat_api:stats", "processed_requests") == wanted
            ),
            "both queues served",
        )


def test_a_message_of_an_unknown_task_is_put_aside(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    async def unheard_of() -> None: ...

    producer.task(name="unheard_of", queue="work")(unheard_of)
    job = producer.tasks["unheard_of"].delay()
    worker = start_worker("-Q", "work")
    wait_until(lambda: raw.zcard("work:queue:retry") == 1, "put aside")
    assert b"reason=unknown_task" in raw.hget("work:meta", job.id)
    worker.wait_for_log(f"Message {job.id} of queue work is put aside, again in ")


def test_a_message_that_cannot_be_read_is_kept_as_a_dead_letter(start_worker: Start, producer: RedisQ, raw: redis.Redis) -> None:
    job = producer.tasks["short"].delay(1)
    garbage = b"\x80\x04pickled"
    raw.hset("work:messages", job.id, garbage)
    start_worker("-Q", "work")
    wait_until(lambda: raw.zcard("work:queue:dlq") == 1, "a dead letter")
    assert b"reason=undecodable" in raw.hget("work:meta", job.id)
    assert raw.hget("work:messages", job.id) == garbage
