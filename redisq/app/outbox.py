"""From messages to enqueue commands, and from their answers to jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from redisq.app.job import Job
from redisq.app.settings import SendOptions, Settings, TaskOptions
from redisq.broker.commands import MAX_BATCH, Command, Enqueue, Enqueued, enqueue
from redisq.broker.keys import QueueKeys
from redisq.codec.hints import Shape
from redisq.codec.msgpack import decode, encode
from redisq.codec.values import Flattener
from redisq.errors import BrokerError, DecodeError, EncodeError, PartlyEnqueued
from redisq.message import Message, new_ids

__all__ = ["Outbox"]


class Outbox:
    """The messages of one `delay` or `delay_many` on their way out. Encodes all before the first is sent.

    Args:
        keys: The queue.
        options: The task.
        sends: The options of each call.
        messages: What to send.
        shape: What the handler builds out of the arguments; None: its code is not here.
        settings: The app's.
        job: Makes a job of an id.
    """

    def __init__(
        self,
        keys: QueueKeys,
        options: TaskOptions,
        sends: Sequence[SendOptions],
        messages: Sequence[Message],
        shape: Shape | None,
        settings: Settings,
        job: Callable[[str], Job],
    ) -> None:
        ids = new_ids(len(messages))
        ways = _ways(options, sends, settings)
        stored = [
            Enqueue(new, _encoded(message, shape, settings.max_bytes), *way)
            for new, message, way in zip(ids, messages, ways, strict=True)
        ]
        self.commands: list[Command[Enqueued]] = [
            enqueue(keys, stored[at : at + MAX_BATCH]) for at in range(0, len(stored), MAX_BATCH)
        ]
        self._jobs = [job(new) for new in ids]

    def jobs(self, results: Sequence[Any]) -> list[Job]:
        """Return the jobs, given the commands' results.

        Raises:
            BrokerError: Nothing was accepted.
            PartlyEnqueued: Some were.
        """
        errors = [result for result in results if isinstance(result, BrokerError)]
        if not errors:
            return self._jobs
        accepted = [
            job
            for at, result in enumerate(results)
            if not isinstance(result, BrokerError)
            for job in self._jobs[at * MAX_BATCH : (at + 1) * MAX_BATCH]
        ]
        if not accepted:
            raise errors[0]
        raise PartlyEnqueued(accepted, len(self._jobs), errors[0]) from errors[0]


class Way(NamedTuple):
    """Head start, due time and expiry, as the script takes them."""

    head_start: int
    due: str
    expires: str


def _ways(options: TaskOptions, sends: Sequence[SendOptions], settings: Settings) -> Iterator[Way]:
    last: SendOptions | None = None
    for send in sends:
        # Mostly the same for all: of a thousand calls they are worked out once.
        if send is not last:
            last, way = send, _way(options, send, settings)
        yield way


def _way(options: TaskOptions, send: SendOptions, settings: Settings) -> Way:
    priority = options.priority if send.priority is None else send.priority
    expires = send.expires or ("" if options.expires is None else f"+{round(options.expires * 1_000_000)}")
    return Way(priority * settings.priority_step, send.due, expires)


def _encoded(message: Message, shape: Shape | None, max_bytes: int) -> bytes:
    flattener = Flattener()
    body = encode(message, max_bytes, flattener)
    if flattener.lossy:
        _check_return(message, body, shape, max_bytes)
    return body


def _check_return(message: Message, body: bytes, shape: Shape | None, max_bytes: int) -> None:
    """Refuse an enum or dataclass that the handler's annotations would not bring back."""
    sent = decode(body, max_bytes)
    kwargs = message.kwargs or {}
    advice = "annotate the handler's parameter with its class, or send plain values"
    if shape is None:
        raise EncodeError(f"task {message.task}: an enum or dataclass needs the handler's annotations; send plain values by name")
    try:
        args, named = shape.revive(sent.args, sent.kwargs or {})
    except (DecodeError, TypeError) as error:
        raise EncodeError(f"task {message.task}: {error}; {advice}") from None
    for name, before, after in shape.compare(message.args, kwargs, args, named):
        if type(before) is not type(after) or before != after:
            raise EncodeError(
                f"task {message.task}: argument {name} of type {type(before).__name__} would arrive otherwise; {advice}"
            )
