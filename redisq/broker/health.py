"""Judge what a server says of itself: one check a function, from `Vitals` to a `Finding`. Nothing here talks to Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from redisq.broker.keys import QueueKeys
from redisq.broker.registry import Registry
from redisq.broker.service import Service
from redisq.broker.vitals import BEYOND_WORKERS, Vitals, is_cluster, is_replica
from redisq.words import counted

__all__ = ["CHECKS", "Finding", "Level", "check_channels", "check_work", "judge"]

#: Seconds that clocks may differ. Scripts use the server's clock alone; `eta=` and `expires=` as a time use the caller's.
MAX_CLOCK_DIFFERENCE = 1.0
LOWEST = (5, 0)


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """The result of one check, in words that say what to do."""

    check: str
    level: Level
    text: str


def judge(vitals: Vitals) -> list[Finding]:
    """Make all checks. Of a Cluster's node, nothing beside that is worth checking."""
    if is_cluster(vitals.info):
        return [check_version(vitals), check_cluster(vitals)]
    return [check(vitals) for check in CHECKS]


def check_version(vitals: Vitals) -> Finding:
    """The server is new enough."""
    text = vitals.info.get("redis_version", "")
    if not text:
        return Finding("version", Level.WARNING, "the user may not run INFO: version, persistence, memory and role are unknown")
    name = "Valkey" if "valkey_version" in vitals.info else "Redis"
    shown = vitals.info.get("valkey_version", text)
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    if parts < LOWEST:
        return Finding("version", Level.ERROR, f"{name} {shown}: redisq needs 5.0 or newer")
    return Finding("version", Level.OK, f"{name} {shown}")


def check_cluster(vitals: Vitals) -> Finding:
    """The server is no node of a Cluster."""
    if is_cluster(vitals.info):
        return Finding(
            "cluster",
            Level.ERROR,
            "cluster_enabled:1: this is a node of a Redis Cluster, which redis:// does not follow; use a server without it",
        )
    return Finding("cluster", Level.OK, "no cluster mode")


def check_role(vitals: Vitals) -> Finding:
    """The server takes writes."""
    if is_replica(vitals.info):
        master = f"{vitals.info.get('master_host', '?')}:{vitals.info.get('master_port', '?')}"
        return Finding("role", Level.ERROR, f"this is a replica of {master}: it refuses writes; use the URL of the master")
    return Finding("role", Level.OK, vitals.info.get("role", "unknown"))


def check_persistence(vitals: Vitals) -> Finding:
    """What is lost when the server dies."""
    info = vitals.info
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(name, "ok") != "ok":
            return Finding("persistence", Level.ERROR, f"the last write of the {what} failed: look at the server's log and disk")
    if not info:
        return Finding("persistence", Level.OK, "unknown")
    if info.get("aof_enabled") == "1":
        fsync = vitals.config.get("appendfsync")
        if fsync == "no":
            text = "appendfsync is no: when the machine dies, what it had not yet written is lost (30 s is usual); set everysec"
            return Finding("persistence", Level.WARNING, text)
        loss = {"always": ", nothing is lost", "everysec": ", at most a second is lost when the machine dies"}.get(fsync or "", "")
        return Finding("persistence", Level.OK, f"appendonly is on{loss}")
    if vitals.config.get("save") == "":
        lost = "all messages are lost when the server ends, for there are no snapshots either"
    else:
        changes = info.get("rdb_changes_since_last_save", "?")
        lost = f"when the server dies, all since its last snapshot is lost (changes now: {changes})"
    return Finding("persistence", Level.WARNING, f"appendonly is no: {lost}; set appendonly yes")


def check_eviction(vitals: Vitals) -> Finding:
    """The server does not throw messages away to make room."""
    policy = vitals.info.get("maxmemory_policy", "unknown")
    if policy in ("noeviction", "unknown"):
        return Finding("eviction", Level.OK, f"maxmemory-policy is {policy}")
    what = "whole queues" if policy.startswith("allkeys") else "results, locks and the answers that make repeated calls safe"
    return Finding("eviction", Level.ERROR, f"maxmemory-policy is {policy}: it can evict {what}; set noeviction")


def check_memory(vitals: Vitals) -> Finding:
    """There is an end to the memory, and it is not near."""
    if "maxmemory" not in vitals.info:
        return Finding("memory", Level.OK, "unknown")
    most, used = int(vitals.info["maxmemory"]), int(vitals.info.get("used_memory", 0))
    if not most:
        text = "maxmemory is not set: when memory is full the system ends the server, where it could refuse new messages instead"
        return Finding("memory", Level.WARNING, text)
    text = f"{used / 1e6:.0f} of {most / 1e6:.0f} MB used"
    if used > 0.9 * most:
        return Finding("memory", Level.WARNING, f"{text}: new messages are refused when it is full; raise maxmemory or add workers")
    return Finding("memory", Level.OK, text)


def check_clock(vitals: Vitals) -> Finding:
    """Server and client agree on the time."""
    ahead = vitals.clock_ahead
    if abs(ahead) > MAX_CLOCK_DIFFERENCE:
        direction = "ahead of" if ahead > 0 else "behind"
        return Finding(
            "clock", Level.WARNING, f"the server's clock is {abs(ahead):.1f} s {direction} this machine's: eta= is off by that"
        )
    return Finding("clock", Level.OK, f"differs by {abs(ahead) * 1000:.0f} ms")


def check_scripts(vitals: Vitals) -> Finding:
    """The server takes every script."""
    if vitals.scripts:
        name, why = next(iter(vitals.scripts.items()))
        return Finding("scripts", Level.ERROR, f"not loaded: {', '.join(vitals.scripts)}. {name}: {why}")
    if vitals.scripts_unchecked:
        return Finding("scripts", Level.OK, "not checked: the user may not run SCRIPT LOAD, which producers and workers do without")
    return Finding("scripts", Level.OK, "all load")


def check_rights(vitals: Vitals) -> Finding:
    """The user may run what redisq needs."""
    if vitals.denied:
        needed = [name for name in vitals.denied if name not in BEYOND_WORKERS]
        if needed:
            return Finding("rights", Level.ERROR, f"the user may not run {', '.join(vitals.denied)}. {vitals.denied[needed[0]]}")
        users: dict[str, list[str]] = {}
        for name in vitals.denied:
            users.setdefault(BEYOND_WORKERS[name], []).append(name)
        need = "; ".join(f"{who} need {', '.join(names)}" for who, names in users.items())
        return Finding("rights", Level.WARNING, f"enough for producers and workers of redisq; this user may not run all: {need}")
    if is_replica(vitals.info):
        return Finding("rights", Level.OK, "not checked on a replica")
    if not vitals.queues:
        return Finding("rights", Level.OK, "not checked: there is no queue yet; name one with -Q")
    return Finding("rights", Level.OK, "the user may run all commands on the keys of these queues")


def check_queues(vitals: Vitals) -> Finding:
    """The queues have a layout that this redisq knows, and nobody else's keys."""
    bad = {queue: why for queue, why in vitals.queues.items() if why}
    if bad:
        return Finding("queues", Level.ERROR, "; ".join(bad.values()))
    named = [queue for queue in vitals.queues if queue not in vitals.unnamed]
    hidden = len(vitals.queues) - len(named)
    more = f"; {counted(hidden, 'queue')} of Celery's remote control and events not shown (--all)" if hidden else ""
    return Finding("queues", Level.OK, f"{', '.join(named) or 'none yet'}{more}")


def check_messages(vitals: Vitals) -> Finding:
    """No queue lost messages, or what lets them run, with a key or a body that was deleted or evicted."""
    parts = []
    for queue, losses in vitals.losses.items():
        keys = losses._replace(bodiless=0, in_turn=0)
        if any(keys):
            counts = ", ".join(f"{count} {name}" for name, count in keys._asdict().items() if count)
            states = f"{counted(keys.stateless, 'body', 'bodies')} in no state" if keys.stateless else ""
            parts.append(f"{queue} lost keys: {states or counts}; run `redisq repair {queue}`")
        if losses.bodiless:
            lost = f"{queue} has {counted(losses.bodiless, 'message')} without a body, which cannot run"
            parts.append(f"{lost}; run `redisq repair {queue}`, which makes them dead letters")
        if losses.in_turn:
            lost = f"{queue} has {counted(losses.in_turn, 'message')} without a body in lanes that stop for a dead letter"
            parts.append(f"{lost}; workers make each one at its turn, or delete them with `redisq cancel`")
    if parts:
        return Finding("messages", Level.ERROR, "; ".join(parts))
    return Finding("messages", Level.OK, "each is in one state, and can be reached")


def check_work(services: Mapping[str, Service]) -> Finding:
    """No queue has work that no living worker serves, and none is overlooked by its workers."""
    parts = []
    for queue, service in services.items():
        work = _work(service)
        if service.is_left_alone:
            parts.append(f"{queue}: {work}, and no living worker serves it: start one with `redisq worker MODULE:APP -Q {queue}`")
        elif service.is_overlooked:
            parts.append(f"{queue}: {work}, and its workers run nothing of it: see `redisq workers` for one that does not answer")
    if parts:
        return Finding("work", Level.ERROR, "; ".join(parts))
    return Finding("work", Level.OK, "no queue has work that nobody does")


def _work(service: Service) -> str:
    view = service.view
    parts = [f"{view.waiting} waiting"] if view.waiting else []
    parts += [f"{view.overdue} overdue by {view.overdue_age:.0f} s"] if view.overdue else []
    parts += [f"{view.expired} with a lease that ended {view.expired_age:.0f} s ago"] if view.expired else []
    return f"{', '.join(parts)}; the oldest for {view.oldest_age or 0:.0f} s"


def check_channels(why: str, registry: Registry, queues: Sequence[QueueKeys]) -> Finding:
    """The user may use the channels. Since Redis 7 a new user may use none, whatever its commands and keys."""
    if why:
        names = [registry.control.removesuffix("control"), *(f"{keys.prefix}:" for keys in queues)]
        allow = " ".join(f"&{name}*" for name in names)
        text = f"{why}. Workers cannot be asked, cancel and results are heard of late; allow {allow}"
        return Finding("channels", Level.WARNING, text)
    return Finding("channels", Level.OK, "the user may speak and listen on them")


#: In the order in which they are told.
CHECKS: tuple[Callable[[Vitals], Finding], ...] = (
    check_version,
    check_cluster,
    check_role,
    check_persistence,
    check_eviction,
    check_memory,
    check_clock,
    check_scripts,
    check_rights,
    check_queues,
    check_messages,
)
