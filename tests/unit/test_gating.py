"""What `@task` and `options` say of gates, and what becomes of calls at the door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from redisq import Context, Job, RedisQ
from redisq.app.gating import Gating
from redisq.broker.commands import Enqueue, Enqueued
from redisq.codec.msgpack import decode
from redisq.errors import ArgumentsError, BrokerUnavailable, ConfigError, DuplicateJob, LaneFull, PartlyEnqueued
from redisq.middleware import Middleware, OutgoingCall
from redisq.testing import FakeServer


@pytest.fixture
def app() -> RedisQ:
    return RedisQ("bot", server=FakeServer())


class Door:
    """What would be sent, and what Redis answers."""

    def __init__(self, app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Enqueue] = []
        self.answers: list[Callable[[list[Enqueue]], Any]] = []
        monkeypatch.setattr(type(app), "connector", property(lambda _: self))

    def execute_many(self, commands: Any) -> list[Any]:
        (command,) = commands
        sent = [Enqueue(*command.args[at : at + 2], descriptor=command.args[at + 2]) for at in range(0, len(command.args), 3)]
        self.sent += sent
        return [self.answers.pop(0)(sent) if self.answers else Enqueued([], {}, [])]

    @property
    def options(self) -> list[str]:
        """The options of each message, as the script reads them."""
        return [each.descriptor for each in self.sent]


@pytest.fixture
def door(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(app, monkeypatch)


def test_a_task_without_gates_has_none(app: RedisQ, door: Door) -> None:
    @app.task
    def plain(chat_id: int) -> None: ...

    plain.delay(42)
    assert plain.gating is None
    assert door.options == [""]


def test_lane_limits_and_cap_travel_with_the_call(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", limits=["bot:30/s", "chat:{chat_id}:1/s burst 3"], lane_cap=100, priority=1)
    async def answer(chat_id: int, text: str) -> None: ...

    answer.delay(42, "hi")
    answer.options(priority=0).delay(chat_id=7, text="ho")
    rules = "bot=30 1000000 2;chat=1 1000000 3;"
    assert door.options == [
        f"60000000 0|60000000 C @42 Rbot,1 Rchat:42,1|100||{rules}",
        f"|0 C @7 Rbot,1 Rchat:7,1|100||{rules}",
    ]


def test_the_rules_travel_once_a_round_trip(app: RedisQ, door: Door) -> None:
    @app.task(limits=["chat:{chat_id}:1/s"])
    async def answer(chat_id: int | None) -> None: ...

    answer.delay_many([(None,), *((chat,) for chat in range(500))])
    told = [at for at, options in enumerate(door.options) if options.endswith(";")]
    assert told == [1, 250, 500]
    assert door.options[0] == ""


def test_a_bound_task_is_keyed_by_what_callers_give(app: RedisQ, door: Door) -> None:
    @app.task(bind=True, key="{chat_id}")
    async def answer(context: Context, chat_id: int) -> None: ...

    answer.delay(42)
    assert door.options == ["|0 C @42|||"]
    with pytest.raises(ConfigError, match="no parameter 'context'"):

        @app.task(bind=True, key="{context}")
        async def other(context: Context, chat_id: int) -> None: ...


def test_one_call_has_its_own_lane_limits_and_cost(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", limits=["tokens:90000/m"], cost="n")
    async def ask(chat_id: int, n: int = 1) -> None: ...

    ask.options(key="vip", cost=7).delay(42)
    ask.options(key="").delay(42, 5)
    ask.options(limits=["bot:{chat_id}:3/s"], cost={}).options(key=1).delay(42)
    ask.delay(42)
    assert [options.split("|")[1] for options in door.options] == [
        "0 C @vip Rtokens,7", "0 F tokens Rtokens,5", "0 C @1 Rbot:42,1", "0 C @42 Rtokens,1",
    ]  # fmt: skip


def test_a_template_for_one_call_is_a_mistake_where_it_is_a_function(app: RedisQ) -> None:
    @app.task
    async def ask(chat_id: int) -> None: ...

    with pytest.raises(ConfigError, match="the name itself"):
        ask.options(key=lambda chat_id: chat_id)


def test_who_sends_by_name_says_the_gates(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", dedupe_key="{chat_id}")
    async def known(chat_id: int) -> None: ...

    app.send("known", (42,))
    app.send("known", (42,), dedupe_key="", key=7)
    app.send("elsewhere", (42,), {"user": 5}, key=42, limits=["bot:30/s", "user:{user}:1/s"], queue="q")
    assert door.options == [
        "|0 C @42||ignore 0 known:42|", "|0 C @7|||", "|0 C @42 Rbot,1 Ruser:5,1|||bot=30 1000000 2;user=1 1000000 1;",
    ]  # fmt: skip


def test_apply_async_takes_them_too(app: RedisQ, door: Door) -> None:
    @app.task
    async def ask(chat_id: int) -> None: ...

    ask.apply_async((42,), key=3, dedupe_key="a b", dedupe_ttl=60, dedupe="extend", countdown=2)
    assert door.options == ["0 +2000000|0 C @3||extend 60000000 ask:a%20b|"]


def test_a_middleware_that_changes_the_arguments_changes_the_lane(door: Door, app: RedisQ) -> None:
    class Merge(Middleware):
        def enqueue(self, call: OutgoingCall) -> OutgoingCall:
            return call.replace(args=(1,))

    app.add_middleware(Merge())

    @app.task(key="{chat_id}")
    async def ask(chat_id: int) -> None: ...

    ask.delay(42)
    assert door.options == ["|0 C @1|||"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "{chat}"}, "no parameter 'chat'"),
        ({"key": 42}, "want a template"),
        ({"limits": "bot:30/s"}, "want a list"),
        ({"limits": ["bot:30"]}, "30 of what"),
        ({"cost": 3}, "has no rate"),
        ({"lane_cap": 3}, "give it one with key="),
        ({"on_dead": "hold"}, "give it one with key="),
        ({"key": "{chat_id}", "on_dead": "stop"}, "want 'continue' or 'hold'"),
        ({"key": "{chat_id}", "lane_cap": 0}, "lane_cap"),
        ({"dedupe_key": "{id}"}, "no parameter 'id'"),
        ({"dedupe": "raise"}, "give it one with dedupe_key="),
        ({"dedupe_ttl": 5}, "give it one with dedupe_key="),
        ({"dedupe_key": "{chat_id}", "dedupe_ttl": 0}, "want seconds > 0"),
        ({"dedupe_key": "{chat_id}", "dedupe": "drop"}, "'return', 'replace', 'extend' or 'raise'"),
        ({"group": "telegram"}, "group"),
        ({"group": "a b", "limits": ["bot:30/s"]}, "group 'a b'"),
    ],
)
def test_a_mistake_is_found_where_the_task_is_decorated(app: RedisQ, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):

        @app.task(name="ask", **options)
        async def ask(chat_id: int) -> None: ...

    assert "ask" not in app.tasks


def test_two_tasks_of_a_queue_cannot_give_one_limit_two_rules(app: RedisQ) -> None:
    @app.task(queue="q", limits=["bot:30/s"])
    async def one() -> None: ...

    @app.task(queue="q", limits=["bot:30/s", "llm: 8 at once"])
    async def same() -> None: ...

    @app.task(queue="q", limits=["bot"])
    async def only_pausable() -> None: ...

    @app.task(queue="other", limits=["bot:20/s"])
    async def elsewhere() -> None: ...

    with pytest.raises(ConfigError, match=r"task two: limit 'bot' is 20/s here and 30/s in task one, which shares it"):

        @app.task(queue="q", limits=["bot:20/s"])
        async def two() -> None: ...


def test_arguments_that_give_no_name_send_nothing(app: RedisQ, door: Door) -> None:
    @app.task(key="{update.chat}")
    async def ask(update: Any) -> None: ...

    with pytest.raises(ArgumentsError, match=r"task ask: key='\{update\.chat\}'"):
        ask.delay_many([({"chat": 1},), ({},)])
    assert door.sent == []


def refuse(*places: int) -> Callable[[list[Enqueue]], Enqueued]:
    return lambda sent: Enqueued([], {}, [sent[at].id for at in places])


def stand_in(*places: int, owner: str = "first") -> Callable[[list[Enqueue]], Enqueued]:
    return lambda sent: Enqueued([], {sent[at].id: owner for at in places}, [])


def test_a_full_lane_is_an_error_of_the_one_call(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", lane_cap=2)
    async def ask(chat_id: int) -> None: ...

    door.answers = [refuse(0)]
    with pytest.raises(LaneFull, match=r"^task ask: the call was not sent: the lane has 2 messages already") as caught:
        ask.delay(42)
    assert (caught.value.refused, caught.value.accepted) == ([0], [])


@pytest.mark.parametrize(
    ("refused", "accepted", "says"),
    [
        (1, 0, "task t: the call was not sent: the lane has 1 message already"),
        (1, 1, "task t: 1 call was not sent, 1 other was: "),
        (1, 3, "task t: 1 call was not sent, 3 others were: "),
        (2, 0, "task t: 2 calls were not sent: "),
    ],
)
def test_error_of_a_full_lane_counts_calls_in_grammatical_english(refused: int, accepted: int, says: str) -> None:
    assert str(LaneFull("t", range(refused), 1, range(accepted))).startswith(says)


def test_of_many_the_others_were_sent(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", lane_cap=2)
    async def ask(chat_id: int) -> None: ...

    door.answers = [refuse(1), refuse(0, 5)]
    with pytest.raises(LaneFull, match=r"3 calls were not sent, 257 others were") as caught:
        ask.delay_many([(chat,) for chat in range(260)])
    assert caught.value.refused == [1, 250, 255]
    assert [job.id for job in caught.value.accepted] == [
        sent.id for at, sent in enumerate(door.sent) if at not in caught.value.refused
    ]


def test_the_job_of_a_deduped_call_is_that_of_the_first(app: RedisQ, door: Door) -> None:
    @app.task(dedupe_key="{update}")
    async def ask(update: int) -> None: ...

    door.answers = [stand_in(1)]
    jobs = ask.delay_many([(1,), (2,), (3,)])
    assert [job.id for job in jobs] == [door.sent[0].id, "first", door.sent[2].id]
    assert jobs[1] == app.job("first", task="ask")


def test_a_duplicate_can_be_an_error(app: RedisQ, door: Door) -> None:
    @app.task(dedupe_key="{update}", dedupe="raise")
    async def ask(update: str) -> None: ...

    door.answers = [stand_in(0)]
    with pytest.raises(DuplicateJob, match=r"^task ask: not sent: job first has the dedupe key 'a' already$") as caught:
        ask.delay("a")
    assert caught.value.job == app.job("first")
    door.answers = [stand_in(0, 2)]
    with pytest.raises(DuplicateJob, match=r"not sent, 1 other call was: .* and 1 more duplicate") as caught:
        ask.delay_many(["a", "b", "c"])
    assert list(caught.value.duplicates) == [0, 2]
    assert [job.id for job in caught.value.accepted] == [door.sent[2].id]


def test_of_two_reasons_none_is_lost(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", lane_cap=1, dedupe_key="{chat_id}", dedupe="raise")
    async def ask(chat_id: int) -> None: ...

    door.answers = [lambda sent: Enqueued([], {sent[1].id: "first"}, [sent[0].id])]
    with pytest.raises(LaneFull) as caught:
        ask.delay_many([(1,), (2,), (3,)])
    assert caught.value.refused == [0]
    assert [job.id for job in caught.value.accepted] == [door.sent[2].id]
    assert isinstance(caught.value.__cause__, DuplicateJob)
    assert list(caught.value.__cause__.duplicates) == [1]


def test_what_was_refused_is_not_counted_as_accepted_when_redis_fails_later(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat_id}", lane_cap=2)
    async def ask(chat_id: int) -> None: ...

    def fail(_: Any) -> Any:
        raise BrokerUnavailable("no answer")

    door.answers = [refuse(0), fail]
    with pytest.raises(PartlyEnqueued) as caught:
        ask.delay_many([(chat,) for chat in range(500)])
    assert len(caught.value.accepted) == 249


@dataclass
class Chat:
    id: int


def test_keys_see_the_arguments_as_the_caller_gave_them(app: RedisQ, door: Door) -> None:
    @app.task(key="{chat.id}", limits=["chat:{chat.id}:1/s"])
    async def ask(chat: Chat) -> None: ...

    ask.delay(Chat(42))
    assert door.options[0].startswith("|0 C @42 Rchat:42,1|")
    assert decode(door.sent[0].body).args == [{"id": 42}]


def test_async_calls_do_the_same(app: RedisQ) -> None:
    @app.task(dedupe_key="{update}")
    async def ask(update: int) -> None: ...

    async def send() -> list[Job]:
        jobs = [await ask.adelay(1), *await ask.adelay_many([(1,), (2,)]), await app.asend("ask", (2,))]
        await app.aclose()
        return jobs

    jobs = asyncio.run(send())
    assert jobs[0] == jobs[1]
    assert jobs[2] == jobs[3] != jobs[0]


def test_gates_are_compiled_once(app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(key="{chat_id}")
    async def ask(chat_id: int) -> None: ...

    gating = ask.gating
    assert isinstance(gating, Gating)
    assert ask.options(countdown=5).gating is gating
    assert ask.options(dedupe_key=5).gating is not gating
