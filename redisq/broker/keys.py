"""The name of every key. Scripts take the fixed keys in the order of `QueueKeys.fixed`."""

from __future__ import annotations

from dataclasses import dataclass, field

from redisq.broker.protocol import Prepared, prepare
from redisq.types import check_name

__all__ = ["EXCHANGE", "FIXED", "GATES", "GROUP", "SHARED", "ExchangeKeys", "GroupKeys", "QueueKey", "QueueKeys"]


#: What the keys of groups begin with, behind the namespace. A queue's name has no colon.
_GROUPS = "redisq:group:"


@dataclass(frozen=True, slots=True)
class QueueKey:
    """One fixed key of a queue: its suffix, its type, and what is in it."""

    name: str
    suffix: str
    type: str
    content: str


#: In the order of `lua/include/keys.lua`.
FIXED: tuple[QueueKey, ...] = (
    QueueKey(
        "main", "queue:main", "zset", "every waiting message; score = its place: tick less the head start of its priority, us"
    ),
    QueueKey("delayed", "queue:delayed", "zset", "not yet due; score = due time, us"),
    QueueKey("retry", "queue:retry", "zset", "waiting for the next attempt; score = due time, us"),
    QueueKey("processing", "queue:processing", "zset", "leased; score = lease deadline, us"),
    QueueKey("dlq", "queue:dlq", "zset", "dead letters; score = time of death, us"),
    QueueKey("messages", "messages", "hash", "id -> encoded message"),
    QueueKey(
        "leases",
        "leases",
        "hash",
        "id -> fence, place in main, worker, perhaps cancel; marked x when taken back after its deadline",
    ),
    QueueKey("meta", "meta", "hash", "id -> attempt, crashes, last error ...; absent for a plain first delivery"),
    QueueKey("clock", "clock", "string", "the last tick given out, us"),
    QueueKey("stats", "stats", "hash", "counters, never falling"),
    QueueKey(
        "config", "config", "hash", "layout version, lease, grace_until, paused, gated, group; seen: see lua/include/clock.lua"
    ),
    QueueKey("wake", "wake", "zset", "one member at most: a hint that there is something to do"),
    QueueKey("never", "never", "-", "never exists: see lua/include/keys.lua"),
)

#: What a queue has besides while there are messages with lanes or limits in it; scripts build these names themselves.
#: Then there is also a zset `flow:` for each lane or set of limits in which something waits, and a zset `waiting:` for
#: each gate at which one of those waits.
GATES: tuple[QueueKey, ...] = (
    QueueKey("needs", "needs", "hash", "id -> its lane and limits"),
    QueueKey("run", "run", "zset", "what a claim may try: ids without gates, `~flow`, `!gate`; score = place in the order, us"),
    QueueKey("lanes", "lanes", "hash", "lane -> id of its message that was started and has not ended"),
    QueueKey("blocked", "blocked", "hash", "flow -> the gate where it waits"),
    QueueKey("gates", "gates", "zset", "gates where a flow waits; score = when it opens by itself, us"),
    QueueKey("slots", "slots", "hash", "gate -> slots that leases hold"),
    QueueKey("tat", "tat", "zset", "gates of rates; score = when all that was granted is paid back, us; has a time to live"),
    QueueKey(
        "pauses", "pauses", "zset", "gate, class or lane -> until when it is paused, us; has a time to live, unless one has no end"
    ),
    QueueKey("limits", "limits", "hash", "class -> rule in the code; `=class` or `=gate` -> an operator's; stays"),
)

#: Those of `GATES` that queues with the same `group=` have together, under the group's prefix.
SHARED = ("tat", "pauses", "limits")

#: What a group of queues has besides those.
GROUP: tuple[QueueKey, ...] = (
    QueueKey("queues", "queues", "zset", "its queues' prefixes; score = last claim that got less than it asked for, us"),
    QueueKey(
        "turns", "turns", "zset", "gate and queue -> when it let that queue pass, while another waits there; has a time to live"
    ),
    QueueKey("clock", "clock", "string", "the last time that one of its queues saw, within half a second, us"),
)

#: The keys of an exchange of the kombu transport, in the order of `lua/include/exchange.lua`.
EXCHANGE: tuple[QueueKey, ...] = (
    QueueKey("routes", "routes", "zset", "what the exchange is, and its bindings; score = till when, us"),
    QueueKey("stream", "stream", "stream", "what was published to a fanout exchange lately"),
)


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue.

    Attributes:
        queue: The queue's name.
        namespace: Put before it, as `namespace:queue`; empty for none.
        prefix: What all its keys begin with.
        fixed: The keys that every script gets, in order.
        common: What follows the script in each call, packed: the number of these keys, the keys, and the prefix.
    """

    queue: str
    namespace: str = ""
    prefix: str = field(init=False)
    fixed: tuple[str, ...] = field(init=False)
    common: Prepared = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("queue", self.queue)
        if self.namespace:
            check_name("namespace", self.namespace)
        prefix = f"{self.namespace}:{self.queue}" if self.namespace else self.queue
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "fixed", tuple(f"{prefix}:{key.suffix}" for key in FIXED))
        object.__setattr__(self, "common", prepare((len(self.fixed), *self.fixed, prefix)))

    def __hash__(self) -> int:
        return hash(self.prefix)

    @property
    def wake(self) -> str:
        """The key that an idle worker blocks on."""
        return f"{self.prefix}:wake"

    def named(self, name: str) -> str:
        """The key of that short name, e.g. `main`."""
        return next(f"{self.prefix}:{key.suffix}" for key in (*FIXED, *GATES) if key.name == name)

    def flow(self, flow: str) -> str:
        """What waits in a lane (`@42`), or in a set of limits without lane; score: its place."""
        return f"{self.prefix}:flow:{flow}"

    def waiting(self, gate: str) -> str:
        """Flows that wait at a gate; score: their place in the order."""
        return f"{self.prefix}:waiting:{gate}"

    def dedupe(self, key: str) -> str:
        """Which message stands for all with that dedupe key."""
        return f"{self.prefix}:dedupe:{key}"

    def call(self, caller: str) -> str:
        """The ledger of one caller; expires by itself."""
        return f"{self.prefix}:call:{caller}"

    def result(self, job_id: str) -> str:
        """The result of one job; expires by itself."""
        return f"{self.prefix}:result:{job_id}"

    def progress(self, job_id: str) -> str:
        """How far one job is, as its handler says; expires by itself."""
        return f"{self.prefix}:progress:{job_id}"

    def done(self, job_id: str) -> str:
        """The channel on which one job's end is told."""
        return f"{self.prefix}:done:{job_id}"


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of a group of queues that share their limits.

    Attributes:
        group: Its name.
        namespace: Put before it; empty for none. That of its queues.
        prefix: What all its keys begin with.
    """

    group: str
    namespace: str = ""
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        check_name("group", self.group)
        if self.namespace:
            check_name("namespace", self.namespace)
        object.__setattr__(
            self, "prefix", f"{self.namespace}:{_GROUPS}{self.group}" if self.namespace else f"{_GROUPS}{self.group}"
        )

    @classmethod
    def of_prefix(cls, prefix: str) -> GroupKeys:
        """The group whose keys begin with that."""
        namespace, _, group = prefix.rpartition(_GROUPS)
        return cls(group, namespace.removesuffix(":"))

    @classmethod
    def pattern(cls, namespace: str) -> str:
        """What the keys match that say which queues a group has, of all groups of a namespace. A name has no `*`, `?` or `[`."""
        return f"{namespace}:{_GROUPS}*:queues" if namespace else f"{_GROUPS}*:queues"

    def named(self, name: str) -> str:
        """The key of that short name, e.g. `tat`."""
        return next(f"{self.prefix}:{key.suffix}" for key in (*GROUP, *GATES) if key.name == name)

    def queue(self, prefix: str) -> QueueKeys:
        """The keys of one of its queues, by their prefix."""
        return QueueKeys(prefix.removeprefix(f"{self.namespace}:" if self.namespace else ""), self.namespace)


@dataclass(frozen=True, slots=True)
class ExchangeKeys:
    """The keys of one exchange of the kombu transport.

    Attributes:
        exchange: Its name, encoded as a queue's.
        namespace: Put before it; empty for none.
        prefix: What all its keys begin with.
        fixed: The keys that every script of exchanges gets, in order.
        common: What follows the script in each call, packed: the number of these keys, the keys, and the prefix.
    """

    exchange: str
    namespace: str = ""
    prefix: str = field(init=False)
    fixed: tuple[str, ...] = field(init=False)
    common: Prepared = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("exchange", self.exchange)
        if self.namespace:
            check_name("namespace", self.namespace)
        prefix = f"{self.namespace}:redisq:exchange:{self.exchange}" if self.namespace else f"redisq:exchange:{self.exchange}"
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "fixed", tuple(f"{prefix}:{key.suffix}" for key in EXCHANGE))
        object.__setattr__(self, "common", prepare((len(self.fixed), *self.fixed, prefix)))

    def __hash__(self) -> int:
        return hash(self.prefix)

    @property
    def stream(self) -> str:
        """The stream of a fanout exchange."""
        return self.fixed[1]
