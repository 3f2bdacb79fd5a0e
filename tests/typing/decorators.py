"""The options of `@task` are checked, on an app and without one; the function itself must be annotated."""

from __future__ import annotations

from datetime import timedelta

from redisq import RedisQ, Worker, task

app = RedisQ("bot", namespace="test", lease=60)
RedisQ()  # E: Missing positional argument "name"
RedisQ("bot", urls="redis://localhost")  # E: Unexpected keyword argument "urls"


@app.task(
    name="full",
    queue="chat_api",
    max_retries=5,
    retry_backoff=0.5,
    retry_backoff_max=60,
    timeout=None,
    priority=9,
    expires=3600,
    autoretry_for=(OSError, TimeoutError),
    dont_retry_for=(ConnectionRefusedError,),
    ack="early",
    result_ttl=60,
)
async def full(chat_id: int) -> None: ...


@app.task(
    key="{chat_id}",
    limits=["bot:30/s", "tokens:90000/m"],
    cost={"tokens": "n"},
    on_dead="hold",
    lane_cap=100,
    dedupe_key=lambda chat_id: chat_id,
    dedupe_ttl=timedelta(days=1),
    dedupe="raise",
)
async def gated(chat_id: int, n: int) -> None: ...


class Bot:
    @staticmethod
    @task
    def in_a_class(chat_id: int) -> None: ...


app.task(max_retry=5)  # E: [call-overload]
app.task(max_retries="5")  # E: [call-overload]
task(queue=5)  # E: [call-overload]
task(ack="soon")  # E: [call-overload]
task(key=42)  # E: [call-overload]
task(limits={"bot": 30})  # E: [call-overload]
task(on_dead="stop")  # E: [call-overload]
task(dedupe="drop")  # E: [call-overload]
task("name")  # E: [call-overload]


@app.task
def without_annotations(chat_id):  # E: missing a type annotation
    pass


Bot.in_a_class.delay(42)
Bot.in_a_class.delay("42")  # E: incompatible type "str"; expected "int"
Worker(app, burst=True, queues=["chat_api"])
Worker("bot")  # E: incompatible type "str"; expected "RedisQ"
Worker(app, concurency=5)  # E: Unexpected keyword argument "concurency"
