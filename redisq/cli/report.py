"""What is told of one message: the same fields for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from redisq.app.progress import Progress
from redisq.broker.held_back import MessageGates
from redisq.broker.keys import QueueKeys
from redisq.broker.overview import Place, celery_places, finished, places
from redisq.cli.output import print_fields, span
from redisq.cli.target import Target, is_internal
from redisq.codec.limits import MAX_BYTES
from redisq.codec.msgpack import decode
from redisq.codec.summary import celery_id, of_celery
from redisq.errors import ConfigError, DecodeError, MessageTooLarge
from redisq.message import Message, Meta, head_start_of
from redisq.redact import MAX_TEXT, redacted, shown
from redisq.types import check_name
from redisq.words import counted

__all__ = ["find_place", "find_places", "letter", "print_report", "report", "told_progress", "unknown_job"]

#: Where a score is a time to come.
_DUE = ("delayed", "retry")


#: An error names no more queues than that.
_NAMED = 8

#: What to show of a task of Celery that has several messages.
_FIRST = ("processing", "waiting", "retry", "delayed", "dead")


def find_place(target: Target, job: str, queues: Sequence[QueueKeys] | None = None) -> Place | None:
    """Look for a message in these queues, else in all of the target's. `job`: its id, or that of a task of Celery."""
    found = find_places(target, job, queues)
    return min(found, key=lambda place: _FIRST.index(place.found.state)) if found else None


def find_places(target: Target, job: str, queues: Sequence[QueueKeys] | None = None) -> list[Place]:
    """Look for the messages of a job in these queues, else in all of the target's. A task of Celery may have several.

    Raises:
        ConfigError: No job can have such an id, and no task of Celery has.
    """
    queues = target.everywhere() if queues is None else queues
    refused: ConfigError | None = None
    try:
        found = target.ask(places(queues, check_name("job", job)))
    except ConfigError as error:
        found, refused = [], error
    # Celery takes any text for an id. A job whose result is kept needs no search through all messages.
    if not found and job and job.isprintable() and (refused or not target.ask(finished(queues, job))):
        found = target.ask(celery_places(queues, job))
    if refused and not found:
        raise refused
    return found


def unknown_job(target: Target, job: str) -> click.ClickException:
    """Return the error for a job that no queue has."""
    queues = target.everywhere()
    done = target.ask(finished(queues, job))
    if done:
        return click.ClickException(f"job {job} of queue {done.queue} is done")
    shown_queues = [keys.queue for keys in queues if not is_internal(keys)]
    names = ", ".join(shown_queues) if len(shown_queues) <= _NAMED else f"any of {len(shown_queues)} queues"
    names = names or "any queue (there is none)"
    lost = [keys.queue for keys in target.at_risk() if keys not in queues]
    where = f"; {', '.join(lost)} cannot be read: run `redisq doctor`" if lost else ""
    return click.ClickException(f"no job {job} in {names}: it is done, was removed, or never was{where}")


def letter(keys: QueueKeys, id: str, body: bytes, meta: Meta, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return what is told of any message: whose it is, and how its attempts went."""
    message = _read(body, max_bytes)
    return {
        "id": shown(id, 128),
        "celery_id": shown(told, 128) if (told := celery_id(body)) else None,
        "queue": keys.queue,
        "task": shown(message.task, 128) if isinstance(message, Message) else None,
        "attempt": meta.attempt,
        "crashes": meta.crashes,
        "parks": meta.parks,
        "requeues": meta.requeues,
        "reason": shown(meta.reason) or None,
        "error": shown(meta.text, MAX_TEXT) or None,
        "size": len(body),
    }


def report(
    place: Place,
    *,
    show_args: bool,
    progress: Progress | None = None,
    gates: MessageGates | None = None,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """Return all that is told of one message."""
    found = place.found
    message = _read(found.body, max_bytes)
    # Celery's are in a body of its own, which is not read.
    counted = isinstance(message, Message) and of_celery(found.body) is None
    away = (found.score - place.now) / 1_000_000
    fields = {
        **letter(place.keys, place.id, found.body, found.meta, max_bytes),
        "state": found.state,
        "position": found.position,
        "lane": shown(gates.lane, 200) if gates and gates.lane else None,
        "lane_position": gates.place if gates else None,
        "lane_holder": shown(gates.holder, 128) if gates and gates.holder else None,
        "limits": [shown(limit, 300) for limit in gates.limits] if gates else [],
        "waits_at": shown(gates.waits_at, 300) if gates and gates.waits_at and found.state == "waiting" else None,
        "worker": shown(found.worker, 200) if found.worker else None,
        "due": away if found.state in _DUE else None,
        "age": max(-away - _ahead(place.id), 0.0) if found.state == "waiting" else -away if found.state == "dead" else None,
        "lease": away if found.state == "processing" else None,
        "progress": told_progress(progress),
        "stack": [shown(frame) for frame in found.meta.stack.splitlines()] or None,
        "unreadable": None if isinstance(message, Message) else shown(message),
        "args_count": len(message.args) if counted and isinstance(message, Message) else None,
        "kwargs_count": len(message.kwargs or {}) if counted and isinstance(message, Message) else None,
    }
    if show_args and isinstance(message, Message):
        fields |= {"args": redacted(list(message.args)), "kwargs": redacted(message.kwargs or {})}
    return fields


def _ahead(id: str) -> float:
    """Seconds that a message's place is ahead of the time since which it waits."""
    return head_start_of(id) / 1_000_000


def told_progress(progress: Progress | None) -> dict[str, Any] | None:
    """Return what is told of a job's progress."""
    return progress._replace(note=shown(progress.note, MAX_TEXT))._asdict() if progress else None


def print_report(fields: Mapping[str, Any]) -> None:
    """Print one message for people."""
    words = dict(fields)
    times = {"due": "due in {}", "age": "{} old", "lease": "lease ends in {}"}
    told = [text.format(span(fields[name])) for name, text in times.items() if fields[name] is not None]
    args, kwargs = words.pop("args_count"), words.pop("kwargs_count")
    first: dict[str, Any] = {
        "job": words.pop("id"),
        "celery id": words.pop("celery_id"),
        "queue": words.pop("queue"),
        "state": ", ".join((words.pop("state"), *told)),
        "position": words.pop("position"),
        "task": words.pop("task"),
        "lane": words.pop("lane"),
        "in the lane": words.pop("lane_position"),
        "behind": words.pop("lane_holder"),
        "limits": ", ".join(words.pop("limits")) or None,
        "waits at": words.pop("waits_at"),
    }
    size = counted(words.pop("size"), "byte") + ("" if args is None else f"; arguments: {args} positional, {kwargs} named")
    shown_args: dict[str, Any] = {
        name: json.dumps(words.pop(name), ensure_ascii=False) for name in ("args", "kwargs") if name in words
    }
    if words["progress"] is not None:
        words["progress"] = str(Progress(**words["progress"]))
    frames = words.pop("stack")
    rest = {name: value for name, value in words.items() if name not in times}
    print_fields({**first, **rest, "size": size, **shown_args})
    if frames:
        click.echo("raised in, the innermost last:")
        for frame in frames:
            click.echo(f"  {frame}")


def _read(body: bytes, max_bytes: int) -> Message | str:
    """The message, or why it cannot be read. One of the kombu transport is Celery's, or somebody's own."""
    try:
        return decode(body, max_bytes)
    except (DecodeError, MessageTooLarge) as error:
        return of_celery(body) or str(error)
