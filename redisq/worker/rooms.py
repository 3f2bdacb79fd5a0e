"""How many more messages a worker can begin, in each of the pools that its tasks run in.

A claim says this to Redis (`lua/include/rooms.lua`), so a worker leases what it can begin, and leaves the rest to others. The
pools are the event loop, the threads, and the processes, as far as there are tasks for them. The first of these runs what no
other one knows by its name: unknown tasks, too, which begin nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from redisq.broker.commands import Room
from redisq.worker.held import Held

__all__ = ["Place", "Rooms"]


class Place(NamedTuple):
    """One pool.

    Attributes:
        size: Handlers that it runs at a time.
        tasks: The names of its tasks.
        ahead: Returns how many more would begin within a few milliseconds.
        never_ahead: Those of its tasks of which nothing is leased ahead.
    """

    size: int
    tasks: tuple[str, ...]
    ahead: Callable[[], int]
    never_ahead: tuple[str, ...] = ()


class Rooms:
    """Counts what is held, and what claims on their way may bring, by pool.

    Args:
        places: The pools; one at least.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        #: Task -> its pool, by number; not those of the first pool.
        self.pool_of: dict[str | None, int] = {
            task: number for number, place in enumerate(places) if number for task in place.tasks
        }
        #: What is held in each pool; not in the first one, which has the rest.
        self._held = [0] * len(places)
        self._reserved = [0] * len(places)

    @property
    def slots(self) -> int:
        """Handlers at a time."""
        return sum(place.size for place in self._places)

    def take(self, came: Iterable[Held]) -> None:
        """These are held from now on."""
        for held in came if self.pool_of else ():
            if pool := self.pool_of.get(held.task):
                held.pool = pool
                self._held[pool] += 1

    def drop(self, over: Iterable[Held]) -> None:
        """These are not held any more. May be repeated."""
        for held in over if self.pool_of else ():
            if held.pool:
                self._held[held.pool] -= 1
                held.pool = 0

    def offer(self, held: int, leaving: Sequence[Held] = ()) -> list[Room]:
        """Say what a claim may bring: half of a pool at most, as the other half runs while it is on its way.

        Args:
            held: How many are held, in all pools.
            leaving: Those of them that are settled in front of the claim.
        """
        used = list(self._held)
        for each in leaving if self.pool_of else ():
            used[each.pool] -= bool(each.pool)
        used[0] = held - len(leaving) - sum(used[1:])
        return [_room(place, taken + reserved) for place, taken, reserved in zip(self._places, used, self._reserved, strict=True)]

    def reserve(self, rooms: Sequence[Room], limit: int) -> None:
        """A claim is on its way that may bring so many."""
        for pool, room in enumerate(rooms):
            self._reserved[pool] += min(room.free, limit)

    def release(self, rooms: Sequence[Room], limit: int) -> None:
        """It was answered."""
        for pool, room in enumerate(rooms):
            self._reserved[pool] -= min(room.free, limit)


def _room(place: Place, used: int) -> Room:
    at_once = max(0, place.size - used)
    ahead = place.ahead()
    free = max(0, min(place.size + ahead - used, (place.size + ahead + 1) // 2))
    return Room(place.tasks, free, max(0, free - at_once), place.never_ahead)
