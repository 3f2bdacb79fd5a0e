"""Say whose a message is: the task that it names, as redisq or Celery wrote it. For logs and for people."""

from __future__ import annotations

from redisq.codec.envelope import unpack
from redisq.codec.msgpack import decode
from redisq.errors import DecodeError, MessageTooLarge
from redisq.message import Delivery, Message
from redisq.redact import shown

__all__ = ["celery_id", "dead_letter", "of_celery", "task_of"]

#: Characters of an error that a line of the log shows; `redisq dead show` has more.
_BRIEF = 200


def of_celery(body: bytes) -> Message | None:
    """Return the task that a message of the kombu transport names, with the arguments as Celery wrote them for people."""
    try:
        headers = unpack(body).get("headers")
    except DecodeError:
        return None
    task = headers.get("task") if isinstance(headers, dict) else None
    if not isinstance(headers, dict) or not isinstance(task, str):
        return None
    # The body may be in any serializer, and some of them run code: never read here.
    told = {"args": headers.get("argsrepr"), "kwargs": headers.get("kwargsrepr"), "id": headers.get("id")}
    return Message(task, (), {name: text for name, text in told.items() if isinstance(text, str)})


def celery_id(body: bytes) -> str | None:
    """Return the id that Celery gave to a task; None when the message is none of Celery's."""
    message = of_celery(body)
    return None if message is None else (message.kwargs or {}).get("id")


def dead_letter(queue: str, delivery: Delivery, reason: str, text: str, task: str | None = None) -> str:
    """Return the line of the log that says that a message is a dead letter.

    Args:
        queue: The name of its queue.
        delivery: The message.
        reason: One word.
        text: The error, in words; may be empty.
        task: The task's name; None: it is read from the body.
    """
    name, ident = (task, delivery.id) if task else _whose(delivery)
    name = name or "?"
    words = f": {shown(text, _BRIEF)}" if text else ""
    return f"Task {shown(name, 128)}[{shown(ident, 128)}] of queue {queue} is a dead letter now ({shown(reason, 40)}){words}"


def task_of(delivery: Delivery) -> str | None:
    """Return the name of the task that a message calls; None when none can be read."""
    return _whose(delivery)[0]


def _whose(delivery: Delivery) -> tuple[str | None, str]:
    """The task's name, if one can be read, and the id by which its sender knows it: Celery's own, for a task of Celery."""
    try:
        return decode(delivery.body).task, delivery.id
    except (DecodeError, MessageTooLarge):
        message = of_celery(delivery.body)
    if message is None:
        return None, delivery.id
    return message.task, (message.kwargs or {}).get("id") or delivery.id
