"""From messages to enqueue commands, and from their answers to jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from redisq.app.gating import Gating
from redisq.app.job import Job
from redisq.app.settings import SendOptions, Settings, TaskOptions
from redisq.broker.commands import GATED_BATCH, MAX_BATCH, Command, Enqueue, Enqueued, enqueue
from redisq.broker.keys import GroupKeys, QueueKeys
from redisq.codec.arrival import encode_call
from redisq.codec.hints import Shape
from redisq.errors import BrokerError, DuplicateJob, LaneFull, PartlyEnqueued
from redisq.message import Message, new_ids, with_head_start

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
        gating: What the calls are subject to; None: nothing.
        by_name: Plain arguments are not compared with the annotations.

    Raises:
        EncodeError: An argument cannot travel, or gives no name of a lane or a limit.
        MessageTooLarge: Arguments are too large.
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
        gating: Gating | None = None,
        by_name: bool = False,
    ) -> None:
        ways = [*_ways(options, sends, settings)]
        ids = new_ids(len(messages))
        if any(way.head_start for way in ways):
            ids = [with_head_start(new, way.head_start) for new, way in zip(ids, ways, strict=True)]
        bodies = [encode_call(message, shape, settings.max_bytes, by_name=by_name) for message in messages]
        if gating:
            stored = [*_gated(ids, bodies, ways, messages, gating, keys.namespace)]
        else:
            stored = [Enqueue(new, body, *way) for new, body, way in zip(ids, bodies, ways, strict=True)]
        self._size = GATED_BATCH if gating else MAX_BATCH
        self.commands: list[Command[Enqueued]] = [
            enqueue(keys, stored[at : at + self._size]) for at in range(0, len(stored), self._size)
        ]
        self._job = job
        self._jobs = [job(new) for new in ids]
        self._stored = stored
        self._task = options.name
        self._gating = gating

    def jobs(self, results: Sequence[Any]) -> list[Job]:
        """Return the jobs, given the commands' results. A call that another one stands for has that one's job.

        Raises:
            BrokerError: Nothing was accepted.
            PartlyEnqueued: Some were.
            LaneFull: The lanes of some were full.
            DuplicateJob: Others stand for some, and that is an error.
        """
        for result in results:
            if isinstance(result, BrokerError) or result.owners or result.refused:
                return self._sorted_out(results)
        return self._jobs

    def _sorted_out(self, results: Sequence[Any]) -> list[Job]:
        failed = {at: result for at, result in enumerate(results) if isinstance(result, BrokerError)}
        unsent = [result for result in results if isinstance(result, Enqueued)]
        owners = {own: self._job(owner) for result in unsent for own, owner in result.owners.items()}
        duplicates = owners if self._gating and self._gating.refuses else {}
        refused = {own for result in unsent for own in result.refused}
        jobs = [owners.get(job.id, job) for job in self._jobs]
        accepted = [
            job
            for at, (own, job) in enumerate(zip(self._jobs, jobs, strict=True))
            if at // self._size not in failed and own.id not in refused and own.id not in duplicates
        ]
        if failed:
            error = next(iter(failed.values()))
            if not accepted:
                raise error
            raise PartlyEnqueued(accepted, len(self._jobs), error) from error
        duplicate = self._duplicate(duplicates, accepted) if duplicates else None
        if refused:
            places = [at for at, own in enumerate(self._jobs) if own.id in refused]
            raise LaneFull(self._task, places, self._stored[places[0]].lane_cap, accepted) from duplicate
        if duplicate:
            raise duplicate
        return jobs

    def _duplicate(self, owners: Mapping[str, Job], accepted: Sequence[Job]) -> DuplicateJob:
        duplicates = {at: owners[own.id] for at, own in enumerate(self._jobs) if own.id in owners}
        first, job = next(iter(duplicates.items()))
        dedupe = self._stored[first].dedupe
        return DuplicateJob(self._task, dedupe.key.partition(":")[2] if dedupe else "", job, duplicates, accepted)


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


def _gated(
    ids: Sequence[str], bodies: Sequence[bytes], ways: Sequence[Way], messages: Sequence[Message], gating: Gating, namespace: str
) -> Iterator[Enqueue]:
    """Give the messages with their lanes, limits and dedupe keys. The limits' rules travel once a command."""
    group = GroupKeys(gating.group, namespace).prefix if gating.group else ""
    told = False
    for at, (new, body, way, message) in enumerate(zip(ids, bodies, ways, messages, strict=True)):
        descriptor, cap, dedupe = gating.entry(way.head_start, message.args, message.kwargs or {})
        told = told and at % GATED_BATCH != 0
        yield Enqueue(new, body, *way, descriptor, cap, dedupe, gating.definitions if descriptor and not told else None, group)
        told = told or bool(descriptor)
