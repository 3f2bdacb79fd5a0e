"""From messages to enqueue commands, and from their answers to jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redisq.app.job import Job
from redisq.app.settings import SendOptions, TaskOptions
from redisq.broker.commands import MAX_BATCH, Command, Enqueue, enqueue
from redisq.broker.keys import QueueKeys
from redisq.codec.msgpack import encode
from redisq.errors import BrokerError, PartlyEnqueued
from redisq.message import Message, new_ids

__all__ = ["Outbox"]


class Outbox:
    """The messages of one `delay` or `delay_many` on their way out. Encodes all before the first is sent."""

    def __init__(
        self, keys: QueueKeys, options: TaskOptions, send: SendOptions, messages: Sequence[Message], priority_step: int
    ) -> None:
        priority = options.priority if send.priority is None else send.priority
        head_start, due = priority * priority_step, send.due
        ids = new_ids(len(messages))
        stored = [Enqueue(new, encode(message), head_start, due) for new, message in zip(ids, messages, strict=True)]
        self.commands: list[Command[list[str]]] = [
            enqueue(keys, stored[at : at + MAX_BATCH]) for at in range(0, len(stored), MAX_BATCH)
        ]
        self._jobs = [Job(new, options.name, options.queue) for new in ids]

    def jobs(self, results: Sequence[Any]) -> list[Job]:
        """Return the jobs, given the commands' results so far (fewer than commands when the rest was not sent).

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
