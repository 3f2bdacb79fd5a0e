"""What came out of the demo."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redisq.broker.commands import QueueView
from redisq.demo.chat_api import ChatApi
from redisq.demo.traffic import ChatMessage

__all__ = ["DeadLetter", "Latency", "Result", "result_of"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up.

    Attributes:
        id: The job's id.
        chat_id: Whose message it is.
        reason: One word.
        attempts: How often it was tried, crashes left out.
        crashes: How often its worker died.
        error: The last one.
    """

    id: str
    chat_id: int
    reason: str
    attempts: int
    crashes: int
    error: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from when messages were due until the chat had its answer: half of them, and 99 of 100, were faster."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Take the nearest ranks; of nothing, zero."""
        ranked = sorted(seconds) or [0.0]
        return cls(*(round(ranked[math.ceil(share * len(ranked)) - 1], 3) for share in (0.5, 0.99)))


@dataclass(frozen=True, slots=True)
class Result:
    """The end's numbers.

    Attributes:
        messages: All that were sent.
        answered: Those that the bot dealt with.
        answered_again: Answers too many, for a worker died before it could say that it had answered.
        retries: Attempts after an error.
        workers_killed: By the poison message.
        taken_back: How often a message of a killed worker was given to another.
        dead: The dead letters, in the order of their deaths.
        in_order: Messages of chats that sent several, answered in their order.
        out_of_order: Such that were not.
        limited: How often the chat API had enough (429).
        too_early: How often it was asked again before the time that it had named.
        busiest_second: Requests to the chat API within a second, at most.
        latency: Of all that were answered.
        priority_latency: Of those that were sent last, and with priority.
        seconds: That the demo took.
        url: Of the server, when it was kept.
    """

    messages: int
    answered: int
    answered_again: int
    retries: int
    workers_killed: int
    taken_back: int
    dead: Sequence[DeadLetter]
    in_order: int
    out_of_order: int
    limited: int
    too_early: int
    busiest_second: int
    latency: Latency
    priority_latency: Latency
    seconds: float = 0.0
    url: str | None = None


def result_of(
    messages: Sequence[ChatMessage],
    view: QueueView,
    api: ChatApi,
    dead: Sequence[DeadLetter],
    due: Mapping[int, float],
    *,
    killed: int,
) -> Result:
    """Put together what Redis counted, what the API saw, and when messages were due."""
    waits = {number: at - due[number] for number, at in api.answered.items()}
    urgent = [waits[message.number] for message in messages if message.priority and message.number in waits]
    chats = Counter(message.chat_id for message in messages)
    several = sum(chats[message.chat_id] > 1 for message in messages if message.number in waits)
    return Result(
        messages=len(messages),
        answered=view.stats.get("processed_requests", 0),
        answered_again=api.again,
        retries=view.stats.get("retry_count", 0),
        workers_killed=killed,
        taken_back=view.stats.get("crashes", 0) - sum(letter.reason == "crashed" for letter in dead),
        dead=dead,
        in_order=several - api.out_of_order,
        out_of_order=api.out_of_order,
        limited=view.stats.get("limited", 0),
        too_early=api.too_early,
        busiest_second=api.busiest_second(),
        latency=Latency.of(list(waits.values())),
        priority_latency=Latency.of(urgent),
    )
