"""What came out of the demo."""

from __future__ import annotations

import math
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
    waits = {chat: at - due[chat] for chat, at in api.answered.items()}
    urgent = [waits[message.chat_id] for message in messages if message.priority and message.chat_id in waits]
    return Result(
        messages=len(messages),
        answered=view.stats.get("processed_requests", 0),
        answered_again=api.again,
        retries=view.stats.get("retry_count", 0),
        workers_killed=killed,
        taken_back=view.stats.get("crashes", 0) - sum(letter.reason == "crashed" for letter in dead),
        dead=dead,
        latency=Latency.of(list(waits.values())),
        priority_latency=Latency.of(urgent),
    )
