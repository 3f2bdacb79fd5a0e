"""One call of each script on one queue, for the tests of what goes wrong."""

from __future__ import annotations

from typing import Any

import redis

from redisq.broker import commands, exchanges
from redisq.broker.commands import Command, Enqueue, Settlement
from redisq.broker.keys import ExchangeKeys, GroupKeys, QueueKeys
from redisq.broker.scripts import Script
from tests.clock import START as NOW

__all__ = ["CALLS", "EXCHANGE", "EXCHANGE_CALLS", "GATED", "GATED_CALLS", "KEYS", "LEASED", "NOW", "raw_call"]

KEYS = QueueKeys("q")
LEASE = 30_000_000

#: A queue with a message in every state; `a` is leased with fence 7, `expired` was until now.
LEASED = {
    "config": {"layout": 1, "lease": LEASE},
    "clock": NOW - 1,
    "messages": dict.fromkeys(("a", "expired", "waiting", "delayed", "retry", "dead"), "body"),
    "processing": {"a": NOW + 1, "expired": NOW},
    "leases": {"a": "7 5 w", "expired": "7 6 w"},
    "main": {"waiting": 8},
    "delayed": {"delayed": NOW},
    "retry": {"retry": NOW},
    "dlq": {"dead": 1},
    "meta": {"retry": "attempt=2 score=7 reason=failed text=no", "dead": "score=1 reason=failed text=no"},
    "stats": {"total_messages": 6},
}

CALLS: dict[str, Command[Any]] = {
    "enqueue": commands.enqueue(KEYS, [Enqueue("b", b"B"), Enqueue("c", b"C", 10, "+10")]),
    "claim": commands.claim(KEYS, worker="w", limit=9, lease=2 * LEASE, max_crashes=3),
    "settle": commands.settle(KEYS, [Settlement("retry", "a", 7, 10)], run_time=5),
    "extend": commands.extend(KEYS, [("a", 7)], lease=LEASE),
    "wake": commands.wake(KEYS),
    "pause": commands.pause(KEYS, True),
    "inspect": commands.inspect(KEYS),
    "look": commands.look([KEYS]),
    "find": commands.find(KEYS, "a"),
    "seek": commands.seek(KEYS, "od"),
    "browse": commands.browse(KEYS, "dead", offset=0, limit=10),
    "remove": commands.remove(KEYS, ["waiting", "dead"], counter="cancelled", states=["waiting", "dead"]),
    "cancel": commands.cancel(KEYS, ["a"]),
    "replay": commands.replay(KEYS, ["dead"]),
    "repair": commands.repair_page(KEYS, act=True, lease=LEASE, group="", what="messages", cursor="0"),
    "outcome": commands.outcome(KEYS, "a"),
    "pause_gate": commands.pause_gate(KEYS, "bot", 10),
    "set_limit": commands.set_limit(KEYS, "bot", "1 1000000 1"),
    "kick": commands.kick(KEYS, ["bot"]),
    "join": commands.join(KEYS, GroupKeys("g")),
    "declare": commands.declare(KEYS, ttl=60_000, message_ttl=5, max_length=9, keep_expired=True),
    "delete": commands.delete(KEYS),
    "restore": commands.restore(KEYS, [("a", 7)], limit=20),
}

EXCHANGE = ExchangeKeys("x")

#: The same for those that work on an exchange of the kombu transport.
EXCHANGE_CALLS: dict[str, Command[Any]] = {
    "bind": exchanges.bind(EXCHANGE, [(b"type:topic", 0), (b"bind:a", 60_000_000)]),
    "broadcast": exchanges.broadcast(EXCHANGE, b"B", length=10, age=60_000_000),
    "routes": exchanges.routes(EXCHANGE),
    "unbind": exchanges.unbind(EXCHANGE, [b"bind:a"]),
}

#: The same with lanes and limits: `a` holds lane 1, and a slot; `waiting` waits at the bot's limit, `second` behind `a`.
GATED = LEASED | {
    "config": {"layout": 1, "lease": LEASE, "gated": 1},
    "messages": dict.fromkeys(("a", "expired", "waiting", "second", "plain", "delayed", "retry", "dead"), "body"),
    "main": {"waiting": 8, "second": 9, "plain": 10},
    "needs": {
        "a": "0 C @1 Sllm,1", "second": "0 C @1 Sllm,1", "waiting": "0 F bot Rbot,1", "retry": "0 H @2", "dead": "0 H @3",
    },
    "run": {"plain": 10},
    "lanes": {"@1": "a", "@2": "retry", "@3": "dead"},
    "blocked": {"bot": "bot"},
    "gates": {"bot": NOW + 5},
    "slots": {"llm": 1},
    "tat": {"bot": NOW + 1_000_005},
    "pauses": {"@9": NOW + 5},
    "limits": {"bot": "1 1000000 1", "llm": "1"},
    "flow": {"bot": {"waiting": 8}, "@1": {"second": 9}},
    "waiting": {"bot": {"bot": 8}},
    "stats": {"total_messages": 8},
}  # fmt: skip

#: The scripts that have to do with gates when there are some.
GATED_CALLS: dict[str, Command[Any]] = {
    name: CALLS[name]
    for name in ("claim", "settle", "restore", "delete", "remove", "repair", "replay", "pause_gate", "set_limit", "kick")
} | {"enqueue": commands.enqueue(KEYS, [Enqueue("b", b"B", descriptor="0 C @1 Rbot,1 Sllm,1", definitions={"bot": "1 1000000 1"})])}


def raw_call(client: redis.Redis, script: Script, args: tuple[Any, ...], number: Any = 1) -> Any:
    """Run a script with arguments that no command of ours would send. Caller `c`."""
    identity = ("c", number) if CALLS[script.name].numbered else ()
    return client.execute_command("EVAL", script.source, len(KEYS.fixed), *KEYS.fixed, KEYS.prefix, *identity, *args)
