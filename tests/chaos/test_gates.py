"""Lanes and limits at full size: through kills and a restart of Redis, and against a chat platform that counts."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redisq import RedisQ
from tests.integration import gated
from tests.integration.chat_platform import MICROSECONDS, ChatPlatform, Rules, running
from tests.integration.processes import WorkerProcess, wait_until
from tests.integration.schedule import Arrival, achievable
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(400)

WORKERS = 4

#: So many times as fast as Telegram, so that 20,000 messages take less than two minutes.
FACTOR = 8


class Scene:
    """A server of its own, and workers that come back when they are killed.

    Args:
        folder: For logs and ledger.
        options: Of `redisq worker`.
        durable: Each write is in the server's file before it is answered.
        environment: More variables for the workers.
    """

    def __init__(self, folder: Path, *options: str, durable: bool = False, **environment: str) -> None:
        self.server = RedisServer(None, "--appendfsync", "always", append_only=durable).start()
        self.client = self.server.client()
        self.app: RedisQ = gated.app.at(url=self.server.url())
        self._folder = folder
        self._options = options
        self._environment = environment
        self.workers = [self._start() for _ in range(WORKERS)]
        #: Processes that were killed.
        self.killed: set[str] = set()
        for worker in self.workers:
            worker.ready()

    def _start(self) -> WorkerProcess:
        return WorkerProcess(
            self.server.url(), self._folder, *self._options, app="tests.integration.gated:app", **self._environment
        )

    def kill(self, place: int) -> None:
        worker = self.workers[place]
        worker.kill()
        self.killed.add(str(worker.process.pid))
        self.workers[place] = self._start()

    def restart_redis(self) -> None:
        self.server.kill()
        self.server.start()
        self.client.close()
        self.client = self.server.client()

    def counted(self, queue: str, counter: str) -> int:
        return int(self.client.hget(f"{queue}:stats", counter) or 0)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.app.close()
        self.client.close()
        self.server.close()


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def start(*options: str, durable: bool = False, **environment: str) -> Scene:
        scenes.append(Scene(tmp_path, *options, durable=durable, **environment))
        return scenes[-1]

    yield start
    for scene in scenes:
        scene.close()


@pytest.mark.chaos
def test_no_lane_is_out_of_order_through_ten_kills_and_a_restart(set_up: Callable[..., Scene], tmp_path: Path) -> None:
    lanes, each, kills = 50, 400, 10
    scene = set_up("-Q", "lanes", "-c", "20", durable=True, BOT_LEASE="3")
    seeded = random.Random(42)
    total = lanes * each
    task = scene.app.tasks["in_order"]
    for number in range(each):
        task.delay_many([(chat, number) for chat in range(lanes)])
    for fault in range(1, kills + 2):
        wait_until(lambda at=fault: scene.counted("lanes", "processed_requests") > at * total // (kills + 3), "work", 90)
        if fault == kills // 2:
            scene.restart_redis()
        else:
            scene.kill(seeded.randrange(WORKERS))
    wait_until(lambda: scene.counted("lanes", "processed_requests") + scene.counted("lanes", "late_acks") >= total, "an end", 180)
    wait_until(lambda: not scene.client.exists("lanes:messages"), "nothing left", 30)
    assert scene.counted("lanes", "dlq_messages") == 0
    last: dict[str, int] = {}
    running_in: dict[str, str] = {}
    ended: defaultdict[str, set[int]] = defaultdict(set)
    for line in (tmp_path / "ledger").read_text().splitlines():
        kind, what, process, _ = line.split()
        chat, _, text = what.partition(":")
        number = int(text)
        if kind == "S":
            assert running_in.get(chat) is None or running_in[chat] in scene.killed, f"two at a time in lane {chat}: {what}"
            assert number in (last.get(chat, 0), last.get(chat, -1) + 1), f"lane {chat}: {number} after {last.get(chat)}"
            assert number == 0 or number - 1 in ended[chat], f"lane {chat}: {number} before the end of the one before"
            last[chat] = number
            running_in[chat] = process
        else:
            ended[chat].add(number)
            running_in.pop(chat, None)
    assert {chat: len(numbers) for chat, numbers in ended.items()} == dict.fromkeys(map(str, range(lanes)), each)


# Sends are counted to milliseconds: with other tests beside it, it would be a test of the machine.
@pytest.mark.platform
def test_a_thousand_chats_within_the_limits_and_near_the_optimum(set_up: Callable[..., Scene]) -> None:
    rules = Rules.scaled(FACTOR)
    seeded = random.Random(1)
    chats = [*range(1, 901), *range(-100, 0)]
    calls = [(chat, min(chat, 0) or None, str(number)) for number in range(20_000) for chat in [seeded.choice(chats)]]
    # Once in a while the platform refuses for no reason that the bot could know.
    refusals = dict.fromkeys(seeded.sample(chats, 10), 1)
    platform = ChatPlatform(rules, inject=lambda chat: MICROSECONDS if refusals.pop(chat, 0) else 0)
    best = max(sent.at for sent in achievable((Arrival(0, chat, text) for chat, _, text in calls), rules)) / MICROSECONDS
    with running(platform) as url:
        scene = set_up("-Q", "platform", CHAT_PLATFORM=url, BOT_FACTOR=str(FACTOR))
        scene.app.tasks["send"].delay_many(calls)
        wait_until(lambda: scene.counted("platform", "processed_requests") == len(calls), "all are sent", 200)
    assert platform.injected == 10
    assert (platform.floods, platform.ignored) == (Counter(), Counter())
    took = (platform.accepted[-1].at - platform.accepted[0].at) / MICROSECONDS
    print(f"{took:.1f} s, {took / best:.3f} of the best; early by at most {dict(platform.slack_used)} us")
    assert took <= 1.05 * best
    texts: defaultdict[int, list[int]] = defaultdict(list)
    for message in platform.accepted:
        texts[message.chat_id].append(int(message.text))
    assert all(numbers == sorted(numbers) for numbers in texts.values())
    assert sum(map(len, texts.values())) == len(calls)
    assert scene.counted("platform", "limited") == 10


@pytest.mark.chaos
def test_a_loud_chat_delays_nobody(set_up: Callable[..., Scene], tmp_path: Path) -> None:
    """Once a slot is free, at most one message of another starts before a fresh chat's."""
    scene = set_up("-Q", "lanes", "-c", "1")
    for worker in scene.workers[1:]:
        worker.kill()
    task = scene.app.tasks["in_order"]
    for start in range(0, 100_000, 10_000):
        task.delay_many([(1, number) for number in range(start, start + 10_000)])
    wait_until(lambda: scene.counted("lanes", "processed_requests") > 100, "the loud one is at work", 30)
    ledger = tmp_path / "ledger"
    for fresh in range(2, 12):
        at = ledger.stat().st_size
        task.delay(fresh, 0)
        wait_until(lambda chat=fresh: f"E {chat}:0 " in ledger.read_text()[-100_000:], "the fresh chat has its answer", 5)
        between = [line for line in ledger.read_text()[at:].split(f"S {fresh}:0 ")[0].splitlines() if line.startswith("S ")]
        # One may end, and another begin, while the call is on its way to Redis; and one comes before it.
        assert len(between) <= 2, between
