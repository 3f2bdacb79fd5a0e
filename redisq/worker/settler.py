"""Group commit: settlements gather until the next trip to Redis, never longer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from redisq.broker.commands import MAX_BATCH, Command, Settlement, settle
from redisq.broker.keys import QueueKeys
from redisq.worker.held import Held

__all__ = ["Batch", "Ended", "Settler"]


class Ended(NamedTuple):
    """A delivery with its end."""

    held: Held
    settlement: Settlement
    run_time: int


class Batch(NamedTuple):
    """What one settle command carries."""

    keys: QueueKeys
    ended: Sequence[Ended]

    @property
    def command(self) -> Command[list[str]]:
        """The command that settles it."""
        settlements = [ended.settlement for ended in self.ended]
        return settle(self.keys, settlements, sum(ended.run_time for ended in self.ended))


class Settler:
    """The settlements that were not sent yet, by queue."""

    def __init__(self) -> None:
        #: By the queue's prefix.
        self._waiting: dict[str, list[Ended]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, held: Held, settlement: Settlement, run_time: int) -> None:
        """Hand in one end."""
        self._waiting.setdefault(held.keys.prefix, []).append(Ended(held, settlement, run_time))

    def take(self, resting: Collection[QueueKeys] = ()) -> list[Batch]:
        """Return all that wait, in batches that a script takes; what is of a resting queue waits on."""
        taken, self._waiting = self._waiting, {}
        for keys in resting:
            if waits_on := taken.pop(keys.prefix, None):
                self._waiting[keys.prefix] = waits_on
        several = [ended[at : at + MAX_BATCH] for ended in taken.values() for at in range(0, len(ended), MAX_BATCH)]
        return [Batch(ended[0].held.keys, ended) for ended in several]

    def put_back(self, batch: Batch) -> None:
        """The batch was refused for now: it goes first with the next trip."""
        prefix = batch.keys.prefix
        self._waiting[prefix] = [*batch.ended, *self._waiting.get(prefix, ())]
