"""One function a script: each returns a frozen `Command` that says what to run. Nothing here talks to Redis.

Every command is safe to repeat after a lost reply: the connector numbers the calls of those that change something
beyond that (`numbered`), and their script answers a repeated number with what it answered before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from redisq.broker.keys import ExchangeKeys, GroupKeys, QueueKeys
from redisq.broker.replies import number, text, texts
from redisq.message import PLAIN, Delivery, Meta, parse_meta
from redisq.types import MAX_MICROSECONDS

__all__ = [
    "GATED_BATCH",
    "MAX_BATCH",
    "MAX_LOOKS",
    "SUSPECT",
    "Claimed",
    "ClockSetBack",
    "Command",
    "Dedupe",
    "Deleted",
    "Enqueue",
    "Enqueued",
    "Found",
    "Look",
    "Outcome",
    "QueueView",
    "Replayed",
    "Restored",
    "Room",
    "Row",
    "Settlement",
    "browse",
    "cancel",
    "claim",
    "declare",
    "delete",
    "enqueue",
    "extend",
    "find",
    "given_back",
    "inspect",
    "join",
    "keep_progress",
    "kick",
    "limited",
    "look",
    "outcome",
    "pause",
    "pause_gate",
    "progress",
    "remove",
    "repair_page",
    "replay",
    "restore",
    "seek",
    "set_limit",
    "settle",
    "trips",
    "wait",
    "wake",
]

T_co = TypeVar("T_co", covariant=True)

#: The most messages that one call of a script takes.
MAX_BATCH = 1000

#: The most queues that one `look` should ask for: each costs some 2 us, and others wait.
MAX_LOOKS = 500

#: The most messages with lanes or limits that one enqueue should bring: each costs some 15 us, and others wait.
GATED_BATCH = 250


#: From so many crashes on a message runs apart (I13): when it is the reason, no innocent dies with it.
SUSPECT = 2

#: More crashes than any message has.
_NO_SUSPECT = 1_000_000


@dataclass(frozen=True, slots=True)
class Command(Generic[T_co]):
    """What to run, and how to read the answer.

    Attributes:
        script: The script's name; empty when `args` is a plain Redis command.
        keys: The queue, or exchange, that it works on; None: the server, or all of the database.
        args: The arguments after the common ones (prefix; caller and number when numbered).
        parse: From the raw reply to the result.
        numbered: Whether the connector numbers the call, so that a repetition acts once.
    """

    script: str
    keys: QueueKeys | ExchangeKeys | None
    args: tuple[Any, ...]
    parse: Callable[[Any], T_co]
    numbered: bool = False


class Dedupe(NamedTuple):
    """Once at the door: while a message with the same key is not done, it stands for a new one, which is not stored.

    Attributes:
        key: Without spaces, `|` and control characters (`redisq.gates.template.encode_name`).
        mode: What the new one does to the one that stands for it: `ignore`: nothing; `replace`: gives it its body, while
            it waits; `extend`: that, and its due time, when both are due later. One that runs is left as it is by
            `replace` and `extend`, and the new one is stored, and is the key's from then on.
        window: Microseconds from now that the key is kept, however soon the message is done; 0: until it is done.
    """

    key: str
    mode: Literal["ignore", "replace", "extend"] = "ignore"
    window: int = 0


class Enqueue(NamedTuple):
    """One message to accept.

    Attributes:
        id: Made by the caller; the same id twice is one message.
        body: The encoded message.
        head_start: What its priority is worth, in microseconds; less than 0: it stands back.
        due: `0` for now, `+n` for n microseconds from now, `n` for that time, in microseconds since the epoch.
        expires: When it is dropped if it was not leased by then, in the same way; empty for never.
        descriptor: Its lane and limits, as `redisq.gates.descriptor.Gates` writes them; empty for none.
        lane_cap: It is refused when so many of its lane wait or run; 0: any number may.
        dedupe: Which message may stand for it; None: none.
        definitions: Class -> definition of the limits in `descriptor`: written where that class has none yet.
        group: The prefix of the keys of the group that its limits are shared in: a queue that is in none joins it.
    """

    id: str
    body: bytes
    head_start: int = 0
    due: str = "0"
    expires: str = ""
    descriptor: str = ""
    lane_cap: int = 0
    dedupe: Dedupe | None = None
    definitions: Mapping[str, str] | None = None
    group: str = ""


class Enqueued(NamedTuple):
    """The answer of `enqueue`: which messages were not stored as such; all others were.

    Attributes:
        present: Ids that were in the queue already; those messages are as they were.
        owners: Id -> id of the message that has its dedupe key and stands for it.
        refused: Ids whose lane had as many messages as their `lane_cap`.
    """

    present: list[str]
    owners: dict[str, str]
    refused: list[str]


class Room(NamedTuple):
    """How many more messages the caller of `claim` can run in one of its pools.

    Attributes:
        tasks: The names of the tasks that run there. Of the first room it does not count: it is for all other messages.
        free: So many can be leased.
        ahead: So many of them would begin soon, and not at once. They are not leased from a queue with gates.
        never_ahead: The names of the tasks, of those that run there, that are only leased where they begin at once.
    """

    tasks: tuple[str, ...]
    free: int
    ahead: int = 0
    never_ahead: tuple[str, ...] = ()


class ClockSetBack(NamedTuple):
    """The server's clock was set back since the queue's last call, or a replica whose clock is behind took over.

    Attributes:
        seconds: By so many.
        moved: So many deadlines, retries, pauses and rates were moved back with it.
    """

    seconds: float
    moved: int

    def __str__(self) -> str:
        return (
            f"the server's clock was set back by {self.seconds:.1f} s, and with it deadlines, retries, pauses and rates"
            f" ({self.moved} in all); messages with a due time keep that"
        )


class Claimed(NamedTuple):
    """The answer of `claim`.

    Attributes:
        deliveries: What was leased, in order.
        next_due: Seconds until the queue has something to do for the caller; 0 for at once, None when nothing is known.
        short: The numbers of the rooms, from 0, that were too small for a message.
        dead: The messages that the claim made dead letters. Their meta has the reason; a large body may be left out.
        set_back: The clock was set back, and no claim has said so yet.
    """

    deliveries: list[Delivery]
    next_due: float | None
    short: frozenset[int] = frozenset()
    dead: Sequence[Delivery] = ()
    set_back: ClockSetBack | None = None


class Deleted(NamedTuple):
    """The answer of `delete`.

    Attributes:
        waited: How many messages waited before the call; -1: nothing was deleted.
        left: How many messages are still to be deleted.
    """

    waited: int
    left: int


class Restored(NamedTuple):
    """The answer of `restore`.

    Attributes:
        stale: The ids that were refused.
        dead: The ids of the messages that are dead letters now.
    """

    stale: list[str]
    dead: list[str]


class Look(NamedTuple):
    """What `look` says of one queue.

    Attributes:
        next_due: Seconds until a claim has something to do; 0 for at once, None when nothing is known.
        band: The priority of its first message, to the nearest step behind a message of now without priority. None: no
            message waits, a claim has to move others to it first, or nobody asked.
        many: How many waiting messages are in this band or before it.
    """

    next_due: float | None
    band: int | None = None
    many: int = 0


class Settlement(NamedTuple):
    """How one delivery ends: `ack`, `result`, `retry`, `park`, `crash`, `release`, `cancel`, `dead`, or `limited`.

    See `lua/settle.lua`; for `limited` there is the function of that name.

    Attributes:
        delay: Microseconds: until the next attempt, for retry, park and crash; to keep the result.
        reason: One word, lower case.
        text: Free text: the error; the encoded result.
        stack: Where the error was raised: a frame a line, without values. Kept with a dead letter, behind its text.
    """

    op: str
    id: str
    fence: int
    delay: int = 0
    reason: str = "none"
    text: str | bytes = ""
    stack: str = ""


class QueueView(NamedTuple):
    """A queue's lengths and counters at one moment.

    A message is overdue when it is due and still in `delayed` or `retry`. All ages are in seconds; None: there is none.

    Attributes:
        oldest_age: For how long the oldest message that could run does not: the oldest that waits, since it was accepted or
            due; the first that is overdue; or the first whose lease ended.
        stateless: Bodies in no state, at least: a key of the queue was deleted or evicted. See `redisq.broker.repair`.
        overdue: How many messages are overdue.
        overdue_age: For how long the first is.
        expired: How many leases ended, and their messages were not taken back.
        expired_age: How long ago the first did.
        bodiless: The least number of messages without a body: somebody deleted it, or the server evicted it. Running messages,
            and dead letters with the reason `body_missing`, do not count. See `redisq.broker.repair`.
    """

    waiting: int
    delayed: int
    retry: int
    processing: int
    dead: int
    paused: bool
    oldest_age: float | None
    stats: dict[str, int]
    stateless: int = 0
    overdue: int = 0
    overdue_age: float | None = None
    expired: int = 0
    expired_age: float | None = None
    bodiless: int = 0


class Found(NamedTuple):
    """Where a message is.

    `score` is in microseconds. `position` counts from 1 in its state; in a lane, from 1 among the messages that are to start.
    """

    state: str
    score: int
    position: int
    body: bytes
    meta: Meta
    worker: str | None


class Replayed(NamedTuple):
    """What a replay came to: the ids that wait again, and those that do not -> the message that has their dedupe key."""

    ids: list[str]
    held: dict[str, str]


class Row(NamedTuple):
    """One message of a page. `score` is in microseconds: see the page of the state's key."""

    id: str
    score: int
    body: bytes
    meta: Meta


class Outcome(NamedTuple):
    """How one job stands: `open`, `done` with its encoded result, `dead` with its meta, or `gone` without a trace."""

    state: str
    result: bytes = b""
    meta: Meta = PLAIN


def enqueue(keys: QueueKeys, messages: Sequence[Enqueue]) -> Command[Enqueued]:
    """Accept up to `MAX_BATCH` messages, all that nothing speaks against, or none when the command fails."""
    args: list[Any] = []
    # Unpacked at once: a field of a thousand messages by its name costs more than all that is done with it.
    for ident, body, head_start, due, expires, descriptor, cap, dedupe, definitions, group in messages:
        options = "" if due == "0" and head_start == 0 and not expires else f"{head_start} {due} {expires}".rstrip()
        if descriptor or dedupe is not None:
            once = "" if dedupe is None else f"{dedupe.mode} {dedupe.window} {dedupe.key}"
            rules = "".join([f"{name}={rule};" for name, rule in definitions.items()]) if definitions else ""
            options = f"{options}|{descriptor}|{cap or ''}|{once}|{rules}{group and '|' + group}"
        args += (ident, body, options)
    return Command("enqueue", keys, tuple(args), _enqueued, numbered=True)


def trips(several: Sequence[Command[Any]], limit: int = MAX_BATCH) -> Iterator[list[Command[Any]]]:
    """Give the commands that may leave in one write. The next write leaves when they are answered.

    Enqueues into one queue are put into one command of up to `limit` messages. A write has one such command a queue:
    Redis may refuse it for the moment and accept the one behind it, and its repetition would come too late.
    """
    trip: list[tuple[Command[Any], list[Any]]] = []
    enqueued: dict[str, list[Any]] = {}
    for command in several:
        queue = command.keys.prefix if isinstance(command.keys, QueueKeys) else ""
        args = enqueued.get(queue)
        if args is not None:
            if command.script == "enqueue" and len(args) + len(command.args) <= 3 * limit:
                args += command.args
                continue
            yield _written(trip)
            trip, enqueued = [], {}
        trip.append((command, [*command.args]))
        if command.script == "enqueue":
            enqueued[queue] = trip[-1][1]
    if trip:
        yield _written(trip)


def _written(trip: Sequence[tuple[Command[Any], list[Any]]]) -> list[Command[Any]]:
    return [replace(first, args=tuple(args)) for first, args in trip]


def claim(
    keys: QueueKeys,
    *,
    worker: str,
    limit: int,
    lease: int,
    max_crashes: int,
    apart: int | None = None,
    rooms: Sequence[Room] = (),
    look: int = 0,
) -> Command[Claimed]:
    """Lease up to `limit` messages, of 4 MB together unless it is one, for `lease` microseconds.

    Args:
        keys: The queue.
        worker: The name that the leases are written to.
        limit: Messages at most, up to `MAX_BATCH`.
        lease: Microseconds.
        max_crashes: A message that lost its lease so often is dead.
        apart: Lease up to so many that were there at `SUSPECT` crashes, and are run apart: a lease of theirs that expires is the
            worker's death and not theirs, up to twice `max_crashes`. None: the caller runs nothing apart.
        rooms: What has no room is left for others. None: there is room for all.
        look: With rooms: look at up to so many messages, more than `limit`, for those that have room.
    """
    suspects = (MAX_BATCH, _NO_SUSPECT) if apart is None else (apart, SUSPECT)
    more: list[int | bytes] = [look] if rooms else []
    for at, room in enumerate(rooms):
        # The tasks of the first room are not sent: it takes every task that no other room names.
        more += (room.free, room.ahead, _names(room.tasks if at else (), room.never_ahead))
    return Command("claim", keys, (worker, limit, lease, max_crashes, *suspects, *more), _claimed, numbered=True)


@lru_cache(maxsize=64)  # the same few at each claim
def _names(tasks: tuple[str, ...], never_ahead: tuple[str, ...]) -> bytes:
    """The tasks of a room, as the script wants them."""
    text = f"\0{chr(0).join(tasks)}\0" if tasks else ""
    return (text + "".join(f"\1{name}\0" for name in never_ahead)).encode()


class _Sent(NamedTuple):
    """A settlement as the script takes it."""

    op: str
    id: str
    fence: int
    delay: int
    reason: str
    text: str | bytes


def _sent(settlement: Settlement) -> Settlement | _Sent:
    if settlement.op == "ack":
        return settlement
    kept = settlement.stack and settlement.op == "dead"
    return _Sent(*settlement[:5], Meta.text_with(str(settlement.text), settlement.stack) if kept else settlement.text)


def settle(keys: QueueKeys, settlements: Iterable[Settlement], run_time: int = 0) -> Command[list[str]]:
    """End up to `MAX_BATCH` deliveries; `run_time` is what their handlers took, in microseconds. Gives the stale ids."""
    acks: list[Any] = []
    others: list[Any] = []
    for settlement in map(_sent, settlements):
        if settlement.op == "ack":
            acks += (settlement.id, settlement.fence)
        else:
            others += settlement
    return Command("settle", keys, (run_time, len(acks) // 2, *acks, *others), texts, numbered=True)


def given_back(delivery: Delivery) -> Settlement:
    """Return the settlement of a delivery whose handler was not called: back to its place, and its rates get back what it took."""
    return Settlement("release", delivery.id, delivery.fence, 0, "not_begun")


def limited(id: str, fence: int, *, gate: str, pause: int, jitter: int, reason: str = "limited", text: str = "") -> Settlement:
    """Return the settlement of a delivery that a platform refused: no attempt is spent, no slot held, its lane is kept.

    Args:
        id: The message's.
        fence: The lease's.
        gate: Pauses for all who need it: a class (`bot`) or one instance (`chat:42`), whether the message names it or not;
            empty: none pauses.
        pause: Microseconds; a longer pause of that gate stays.
        jitter: The message itself waits so many more.
        reason: One word, for its meta.
        text: The error.
    """
    return Settlement("limited", id, fence, pause, reason, f"{gate} {jitter} {text}")


def extend(keys: QueueKeys, leases: Iterable[tuple[str, int]], *, lease: int) -> Command[dict[str, str]]:
    """Move the deadlines of (id, fence) to `lease` microseconds from now.

    Gives id -> `lost` for those that are not ours, id -> `cancel` for those that are extended and not wanted any more.
    """
    flat = [value for pair in leases for value in pair]
    return Command("extend", keys, (lease, *flat), _verdicts)


def declare(
    keys: QueueKeys, *, ttl: int = 0, message_ttl: int = 0, max_length: int = 0, keep_expired: bool = False, if_new: bool = False
) -> Command[int]:
    """Make a queue, and set its rules: times in milliseconds (`ttl`) and microseconds, 0 for none. Gives how many wait.

    With `if_new` a queue that is there keeps the rules that it has.
    """
    return Command("declare", keys, (ttl, message_ttl, max_length, int(keep_expired), int(if_new)), int)


def delete(keys: QueueKeys, *, if_empty: bool = False, most: int = 0) -> Command[Deleted]:
    """Delete a queue with all in it, at most `most` messages with lanes, limits or records in this call; 0: all of them.

    With `if_empty` only when nothing waits or is leased. See `redisq.broker.sweep.delete_queue`.
    """
    return Command("delete", keys, (int(if_empty), most), _deleted, numbered=True)


def restore(keys: QueueKeys, leases: Iterable[tuple[str, int]], *, limit: int = 0, age: int = 0) -> Command[Restored]:
    """Give back leases, to their place in the queue. With a limit it counts as a requeue.

    A message is dead after so many requeues, once `age` microseconds have passed since the first. A late ack still counts
    until somebody else has the message.
    """
    flat = [value for pair in leases for value in pair]
    return Command("restore", keys, (limit, age, *flat), _restored, numbered=True)


def look(queues: Sequence[QueueKeys], *, step: int = 0) -> Command[list[Look]]:
    """Ask when each of up to `MAX_LOOKS` queues has something to do.

    Args:
        queues: One at least.
        step: What a step of priority is worth, in microseconds: `band` and `count` are wanted, too; 0: they are not.
    """
    return Command("look", queues[0], (step, *(keys.prefix for keys in queues[1:])), _looks)


def wake(keys: QueueKeys) -> Command[None]:
    """Hint that there is something to do."""
    return Command("wake", keys, (), _nothing)


def wait(queues: Sequence[QueueKeys], seconds: int) -> Command[str | None]:
    """Block until one of the queues has something to do. Gives its wake key, or None. A hint is only a hint."""
    return Command("", queues[0], ("BZPOPMIN", *(keys.wake for keys in queues), seconds), _woken)


def pause(keys: QueueKeys, paused: bool) -> Command[None]:
    """Stop or start claims from a queue. What runs goes on, what is sent waits."""
    return Command("pause", keys, (int(paused),), _nothing)


def pause_gate(keys: QueueKeys, gate: str, microseconds: int | None) -> Command[None]:
    """Let nothing pass a limit's class (`bot`), one of its gates (`chat:42`) or a lane (`@42`) for so long.

    None: until somebody resumes it; 0: resume it. What runs goes on. Who waits at that very gate is looked at again;
    who waits at other gates of a class is not: see `redisq.broker.gates`.
    """
    return Command("pause_gate", keys, (gate, "inf" if microseconds is None else microseconds), _nothing)


def set_limit(keys: QueueKeys, name: str, definition: str, whose: Literal["operator", "code"] = "operator") -> Command[None]:
    """Set the rule of a limit's class (`chat`) or, if it is an operator's, of one gate (`chat:42`); empty: take it away.

    What that very gate has given out counts by the new rule; other gates of a class: see `redisq.broker.gates`.
    """
    return Command("set_limit", keys, (whose, name, definition), _nothing, numbered=True)


def join(keys: QueueKeys, group: GroupKeys | None) -> Command[None]:
    """Make a queue's limits those of a group, or its own. What rates gave out, pauses and rules come along. Safe to repeat."""
    return Command("join", keys, (group.prefix if group else "",), _nothing)


def kick(keys: QueueKeys, gates: Sequence[str]) -> Command[None]:
    """Make up to `MAX_BATCH` gates be looked at again, by the rules and pauses of now. Safe to repeat."""
    return Command("kick", keys, tuple(gates), _nothing)


def inspect(keys: QueueKeys) -> Command[QueueView]:
    """Read a queue's lengths and counters."""
    return Command("inspect", keys, (), _view)


def find(keys: QueueKeys, id: str) -> Command[Found | None]:
    """Look for one message. None when the queue does not have it (any more)."""
    return Command("find", keys, (id,), _found)


def seek(keys: QueueKeys, text: str, cursor: str = "0") -> Command[tuple[str, list[str]]]:
    """Look through a page of the messages for those whose bytes hold a text. Gives the next cursor, `0` at the end, and ids."""
    return Command("seek", keys, (cursor, text), _page)


def browse(keys: QueueKeys, state: str, *, offset: int, limit: int) -> Command[list[Row]]:
    """Read a page of the messages of one state, in order."""
    return Command("browse", keys, (state, offset, limit), _rows)


def remove(keys: QueueKeys, ids: Sequence[str], *, counter: str, states: Sequence[str]) -> Command[list[str]]:
    """Delete messages that are in one of these states; `counter`: cancelled, dropped or purged. Gives the removed ids."""
    return Command("remove", keys, (counter, ",".join(states), *ids), texts, numbered=True)


def cancel(keys: QueueKeys, ids: Sequence[str]) -> Command[list[str]]:
    """Mark messages that run as not wanted any more: their workers hear it when they extend. Gives the marked ids."""
    return Command("cancel", keys, tuple(ids), texts, numbered=True)


def replay(keys: QueueKeys, ids: Sequence[str], *, beside: bool = False) -> Command[Replayed]:
    """Make dead letters wait again, with all attempts anew.

    `beside`: also those whose dedupe key another message has; they wait beside it, without the key.
    """
    return Command("replay", keys, ("beside" if beside else "alone", *ids), _replayed, numbered=True)


def repair_page(
    keys: QueueKeys, *, act: bool, lease: int, group: str, what: str, cursor: str = "0", flows: Sequence[str] = ()
) -> Command[tuple[str, dict[str, int]]]:
    """Put back what a page of a queue's keys has lost, or only count it. See `lua/repair.lua`.

    Gives the cursor of the next page, `0` after the last, and word -> count.
    """
    return Command("repair", keys, (int(act), lease, group, what, cursor, *flows), _losses)


def outcome(keys: QueueKeys, id: str) -> Command[Outcome]:
    """Read how one job stands."""
    return Command("outcome", keys, (id,), _outcome)


def keep_progress(keys: QueueKeys, id: str, packed: bytes, seconds: int) -> Command[None]:
    """Keep how far a job is, for so many seconds."""
    return Command("", keys, ("SET", keys.progress(id), packed, "EX", seconds), _nothing)


def progress(keys: QueueKeys, id: str) -> Command[bytes | None]:
    """Read how far a job is. None: nothing was said of it, or too long ago."""
    return Command("", keys, ("GET", keys.progress(id)), _as_it_is)


def _as_it_is(reply: Any) -> Any:
    return reply


def _score(raw: Any) -> int:
    # Somebody else may have put an infinite one there.
    return int(max(-MAX_MICROSECONDS, min(MAX_MICROSECONDS, float(raw))))


def _enqueued(reply: Any) -> Enqueued:
    present: list[str] = []
    refused: list[str] = []
    owners: dict[str, str] = {}
    for line in texts(reply):
        ident, mark, owner = line.partition("=")
        if not mark:
            present.append(ident)
        elif owner:
            owners[ident] = owner
        else:
            refused.append(ident)
    return Enqueued(present, owners, refused)


def _replayed(reply: Any) -> Replayed:
    parts = [line.partition("=") for line in texts(reply)]
    return Replayed([ident for ident, mark, _ in parts if not mark], {ident: owner for ident, mark, owner in parts if mark})


def _claimed(reply: Any) -> Claimed:
    fence = int(reply[0])
    dead: Sequence[Delivery] = ()
    if len(reply) % 3 == 1:
        dead = _deliveries(reply[-1], fence, text)
    rows = reply[3 : len(reply) - bool(dead)]
    try:
        deliveries = _deliveries(rows, fence, bytes.decode)
    except UnicodeDecodeError:  # an id that another program wrote
        deliveries = _deliveries(rows, fence, text)
    short = frozenset(map(int, reply[2].split())) if reply[2] else frozenset[int]()
    due, _, report = reply[1].partition(b" ")
    set_back = None
    if report:
        back, moved = report.split()
        set_back = ClockSetBack(int(back) / 1_000_000, int(moved))
    return Claimed(deliveries, int(due) / 1_000_000 if due else None, short, dead, set_back)


def _deliveries(rows: Sequence[bytes], fence: int, decode: Callable[[bytes], str]) -> list[Delivery]:
    return [
        Delivery(decode(rows[at]), fence, rows[at + 1], parse_meta(rows[at + 2]) if rows[at + 2] else PLAIN)
        for at in range(0, len(rows), 3)
    ]


def _restored(reply: Any) -> Restored:
    ids = texts(reply)
    at = ids.index(" ") if " " in ids else len(ids)
    return Restored(ids[:at], ids[at + 1 :])


def _looks(reply: Any) -> list[Look]:
    looks = []
    for line in texts(reply):
        due, band, count = (line.split() + ["", "-", "0"][len(line.split()) :])[:3]
        looks.append(Look(int(due) / 1_000_000 if due else None, None if band == "-" else int(band), int(count)))
    return looks


def _verdicts(reply: Any) -> dict[str, str]:
    flat = texts(reply)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _losses(reply: Any) -> tuple[str, dict[str, int]]:
    cursor, *flat = texts(reply)
    return cursor, dict(zip(flat[::2], map(int, flat[1::2]), strict=True))


def _deleted(reply: Any) -> Deleted:
    return Deleted(int(reply[0]), int(reply[1]))


def _nothing(_reply: Any) -> None:
    return None


def _woken(reply: Any) -> str | None:
    return None if reply is None else text(reply[0])


def _page(reply: Any) -> tuple[str, list[str]]:
    cursor, *ids = texts(reply)
    return cursor, ids


def _view(reply: Any) -> QueueView:
    now, waiting, delayed, retry, processing, dead, bodies = (int(value) for value in reply[:7])
    oldest, overdue, expired = (max(now - _score(reply[at]), 0) / 1_000_000 if reply[at] else None for at in (7, 9, 11))
    counters = texts(reply[14:])
    # Fields that others wrote are passed over.
    values = {name: number(value) for name, value in zip(counters[::2], counters[1::2], strict=True)}
    stats = {name: value for name, value in values.items() if value is not None}
    return QueueView(
        waiting,
        delayed,
        retry,
        processing,
        dead,
        reply[12] == b"1",
        max((age for age in (oldest, overdue, expired) if age is not None), default=None),
        stats,
        max(bodies - (waiting + delayed + retry + processing + dead), 0),
        int(reply[8]),
        overdue,
        int(reply[10]),
        expired,
        int(reply[13]),
    )


def _rows(reply: Any) -> list[Row]:
    return [Row(text(reply[at]), _score(reply[at + 1]), reply[at + 2], parse_meta(reply[at + 3])) for at in range(0, len(reply), 4)]


def _outcome(reply: Any) -> Outcome:
    state = text(reply[0])
    if state == "done":
        return Outcome(state, result=reply[1])
    if state == "dead":
        return Outcome(state, meta=parse_meta(reply[1]))
    return Outcome(state)


def _found(reply: Any) -> Found | None:
    if not reply:
        return None
    state, score, position, body, meta, lease = reply
    # A record marked x belongs to nobody any more; one that another program wrote may name nobody.
    words = text(lease).split(" ")
    worker = words[2] if len(words) > 2 and not lease.startswith(b"x") else None
    return Found(text(state), _score(score), int(position), body, parse_meta(meta), worker)
