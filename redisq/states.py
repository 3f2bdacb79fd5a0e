"""The states of a message and what moves it between them. Everything that affects transitions is in this file.

A message is in exactly one state between any two commands. Five states are a sorted set of its queue each; a message
that is done, or gone without having been done, is not stored any more. Each transition is one call of one script.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["TRANSITIONS", "State", "Transition"]


class State(StrEnum):
    """Where a message is. The value is what scripts and the command line call it."""

    WAITING = "waiting"
    DELAYED = "delayed"
    RETRY = "retry"
    PROCESSING = "processing"
    DEAD = "dead"
    DONE = "done"
    GONE = "gone"


class Transition(NamedTuple):
    """One arrow: from a state (None: not accepted yet), by an event, to a state, in a script."""

    source: State | None
    event: str
    target: State
    script: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, "enqueue", State.WAITING, "enqueue"),
    Transition(None, "enqueue with a time", State.DELAYED, "enqueue"),
    Transition(State.DELAYED, "due", State.WAITING, "claim"),
    Transition(State.RETRY, "due", State.WAITING, "claim"),
    Transition(State.WAITING, "expired", State.GONE, "claim"),
    Transition(State.WAITING, "expired, to be kept", State.DEAD, "claim"),
    Transition(State.WAITING, "too many wait", State.GONE, "enqueue"),
    Transition(State.WAITING, "lease", State.PROCESSING, "claim"),
    Transition(State.PROCESSING, "lease expired", State.WAITING, "claim"),
    Transition(State.PROCESSING, "lease expired too often", State.DEAD, "claim"),
    Transition(State.PROCESSING, "lease of a cancelled one expired", State.GONE, "claim"),
    Transition(State.WAITING, "has to run apart, and there is no room", State.RETRY, "claim"),
    Transition(State.WAITING, "body missing", State.DEAD, "claim"),
    Transition(State.PROCESSING, "ack", State.DONE, "settle"),
    Transition(State.WAITING, "late ack of the last holder", State.DONE, "settle"),
    Transition(State.RETRY, "late ack of the last holder", State.DONE, "settle"),
    Transition(State.PROCESSING, "retry", State.RETRY, "settle"),
    Transition(State.PROCESSING, "park", State.RETRY, "settle"),
    Transition(State.PROCESSING, "limited", State.RETRY, "settle"),
    Transition(State.PROCESSING, "crash", State.RETRY, "settle"),
    Transition(State.PROCESSING, "cancel", State.GONE, "settle"),
    Transition(State.PROCESSING, "release", State.WAITING, "settle"),
    Transition(State.PROCESSING, "dead-letter", State.DEAD, "settle"),
    Transition(State.PROCESSING, "give back", State.WAITING, "restore"),
    Transition(State.PROCESSING, "give back too often", State.DEAD, "restore"),
    Transition(State.PROCESSING, "give back a cancelled one", State.GONE, "restore"),
    Transition(State.WAITING, "cancel", State.GONE, "remove"),
    Transition(State.DELAYED, "cancel", State.GONE, "remove"),
    Transition(State.RETRY, "cancel", State.GONE, "remove"),
    Transition(State.DEAD, "drop", State.GONE, "remove"),
    Transition(State.DEAD, "replay", State.WAITING, "replay"),
)
