"""The same flow on the oldest and the newest servers, and a reply that is lost on its way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import redis

from redisq.broker import commands
from redisq.broker.commands import Enqueue, Settlement
from redisq.broker.connection import Server
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.scripts import SCRIPT_NAMES, Scripts
from redisq.errors import BrokerFull, QueueConflict
from tests.contracts.gates_check import check, read
from tests.faces import LEASE, SECOND, Broker, open_face
from tests.leaks import check_leaks
from tests.servers import RedisServer, oldest_binary, valkey_binary
from tests.wire import CuttingProxy

KEYS = QueueKeys("chat_api")

#: What must run it all: Redis 5.0.6, Valkey 9, and the machine's own server.
BINARIES: dict[str, Callable[[], str]] = {"oldest redis": oldest_binary, "valkey": valkey_binary}
if found := shutil.which("redis-server"):
    BINARIES["installed redis"] = lambda: str(found)


@pytest.fixture(scope="module", params=BINARIES)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    server = RedisServer(BINARIES[request.param]())
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        yield client
        check_leaks(client)


@pytest.fixture(params=["sync", "async"])
def broker(request: pytest.FixtureRequest, client: redis.Redis) -> Iterator[Broker]:
    with open_face(request.param, client, KEYS) as opened:
        yield opened


def test_the_oldest_server_is_redis_5() -> None:
    with RedisServer(oldest_binary()) as server, server.client() as client:
        assert client.info("server")["redis_version"].startswith("5.0.")


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_every_script_loads_under_the_sha_that_it_is_called_by(client: redis.Redis, name: str) -> None:
    script = Scripts()[name]
    assert client.script_load(script.source) == script.sha


def test_a_message_goes_all_ways_through_the_queue(broker: Broker) -> None:
    broker.enqueue("acked", "retried", "parked", "released", "dead", "expired")
    broker.enqueue("delayed", due=f"+{SECOND}")
    deliveries = {each.id: each for each in broker.claim().deliveries}
    assert list(deliveries) == ["acked", "retried", "parked", "released", "dead", "expired"]
    broker.ack(deliveries["acked"])
    broker.settle("retry", deliveries["retried"], delay=SECOND, text="no")
    broker.settle("park", deliveries["parked"], delay=SECOND, reason="unknown_task")
    broker.settle("release", deliveries["released"])
    broker.settle("dead", deliveries["dead"], reason="exhausted")
    assert broker.extend(deliveries["expired"], deliveries["acked"]) == {"acked": "lost"}
    broker.pass_time_busily(LEASE)
    again = {each.id: each.meta for each in broker.claim().deliveries}
    assert list(again) == ["retried", "parked", "released", "expired", "delayed"]
    assert (again["retried"].attempt, again["parked"].parks, again["expired"].crashes) == (2, 1, 1)
    view = broker.view()
    assert (view.waiting, view.processing, view.dead) == (0, 5, 1)
    assert view.stats["total_messages"] == 7


def test_lanes_limits_slots_and_pauses_work(broker: Broker) -> None:
    rules = {"bot": "10 1000000 2", "llm": "1"}
    lines = {
        "a1": "0 C @a Rbot,1",
        "a2": "0 C @a Rbot,1",
        "b1": "0 C @b Rbot,1 Sllm,1",
        "c1": "0 F llm Sllm,1",
        "d1": "0 F bot Rbot,1",
    }
    broker.enqueue("plain")
    broker.do(commands.enqueue(KEYS, [Enqueue(each, b"", descriptor=line, definitions=rules) for each, line in lines.items()]))
    deliveries = {each.id: each for each in broker.claim().deliveries}
    assert list(deliveries) == ["plain", "a1", "b1"]
    broker.settle_many([commands.limited("b1", deliveries["b1"].fence, gate="bot", pause=SECOND, jitter=0, text="429")])
    broker.ack(deliveries["plain"], deliveries["a1"])
    last = broker.claim().deliveries
    assert [each.id for each in last] == ["c1"]
    broker.do(commands.pause_gate(KEYS, "@b", None))
    broker.do(commands.set_limit(KEYS, "bot", "1000 1000000 50"))
    broker.pass_time(SECOND)
    assert broker.claimed_ids() == ["d1", "a2"]
    broker.do(commands.pause_gate(KEYS, "@b", 0))
    assert broker.claimed_ids() == []
    broker.ack(*last)
    assert broker.claimed_ids() == ["b1"]
    check(read(broker.raw, KEYS), broker.now)


def test_a_thousand_messages_go_in_and_out_in_order(broker: Broker) -> None:
    ids = [f"m{place}" for place in range(1000)]
    broker.enqueue(*ids)
    deliveries = broker.claim(1000).deliveries
    assert [each.id for each in deliveries] == ids
    assert broker.ack(*deliveries) == []
    assert broker.raw.zcard(KEYS.named("processing")) == 0


def test_fences_and_places_keep_all_their_digits(broker: Broker) -> None:
    broker.enqueue("a")
    first = broker.claim_one()
    broker.settle("release", first)
    second = broker.claim_one()
    assert second.fence == first.fence + 1
    assert broker.raw.hget(KEYS.named("leases"), "a") == f"{second.fence} {first.fence - 1} worker1".encode()


def test_a_worker_is_woken(broker: Broker) -> None:
    broker.enqueue("a")
    assert broker.do(commands.wait([KEYS], 1)) == KEYS.wake


def test_a_foreign_key_is_a_conflict(broker: Broker) -> None:
    broker.raw.set(KEYS.named("main"), "a string")
    with pytest.raises(QueueConflict):
        broker.enqueue("a")
    broker.raw.delete(KEYS.named("main"))


def test_a_full_server_refuses_new_work_and_finishes_the_old(broker: Broker) -> None:
    broker.enqueue("a", "b")
    delivery = broker.claim_one()
    broker.settle("release", delivery)
    delivery = broker.claim_one()
    broker.extend(delivery)
    broker.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerFull):
            broker.enqueue("c")
        assert broker.extend(delivery) == {}
        assert broker.ack(delivery) == []
        assert broker.claimed_ids() == ["b"]
    finally:
        broker.raw.config_set("maxmemory", 0)


def test_the_release_build_goes_by_the_servers_clock_alone(client: redis.Redis) -> None:
    connector = Connector(client, Scripts())
    client.set("chat_api:testclock", 1, ex=600)
    connector.execute(commands.enqueue(KEYS, [Enqueue("a", b"")]))
    seconds, us = client.time()
    clock = int(client.get(KEYS.named("clock")) or 0)
    assert 0 <= seconds * SECOND + us - clock < 60 * SECOND


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server.port)
    yield proxy
    proxy.close()


def test_calls_whose_replies_are_lost_on_the_way_act_once(client: redis.Redis, proxy: CuttingProxy) -> None:
    connector = Server(f"redis://127.0.0.1:{proxy.port}").connector("test")
    connector.execute(commands.inspect(KEYS))  # connected from here on
    for name in SCRIPT_NAMES:
        client.script_load(Scripts()[name].source)

    proxy.lose_next_reply()
    assert not any(connector.execute(commands.enqueue(KEYS, [Enqueue("a", b"A"), Enqueue("b", b"B")])))
    proxy.lose_next_reply()
    claimed = connector.execute(commands.claim(KEYS, worker="w", limit=1, lease=LEASE, max_crashes=3))
    assert [each.id for each in claimed.deliveries] == ["a"]
    proxy.lose_next_reply()
    acks = [Settlement("ack", each.id, each.fence) for each in claimed.deliveries]
    assert connector.execute(commands.settle(KEYS, acks)) == []

    assert proxy.lost == 3
    view = connector.execute(commands.inspect(KEYS))
    assert (view.waiting, view.processing) == (1, 0)
    assert view.stats == {"total_messages": 2, "processed_requests": 1}
    connector.close()


def test_the_library_below_repeats_nothing_by_itself(client: redis.Redis, proxy: CuttingProxy) -> None:
    connector = Server(f"redis://127.0.0.1:{proxy.port}").connector("test")
    raw = connector._wire.client
    raw.ping()
    proxy.lose_next_reply()
    with pytest.raises(redis.ConnectionError):
        raw.incr("foreign:counter")
    assert client.get("foreign:counter") == b"1"
    connector.close()
