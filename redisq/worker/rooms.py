"""How many more messages a worker can begin, in each of the pools that its tasks run in.

A claim says this to Redis (`lua/include/rooms.lua`), so a worker leases what it can begin, and leaves the rest to others. The
pools are the event loop, the threads, and the processes, as far as there are tasks for them. The first of these runs what no
other one knows by its name: unknown tasks, too, which begin nowhere. A pool whose first task is registered late comes last.
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
        pool: Its name.
        size: Handlers that it runs at a time.
        tasks: The names of its tasks.
        ahead: Returns how many more would begin within a few milliseconds.
        never_ahead: Those of its tasks of which nothing is leased ahead.
    """

    pool: str
    size: int
    tasks: tuple[str, ...]
    ahead: Callable[[], int]
    never_ahead: tuple[str, ...] = ()


class Rooms:
    """Counts what is held, and what claims on their way may bring, by pool.

    Args:
        places: Returns the pools with the tasks that they have now; one has some.
    """

    def __init__(self, places: Callable[[], Sequence[Place]]) -> None:
        self._look_up = places
        #: By the pool's name, in the order of their numbers.
        self._by_pool: dict[str, Place] = {}
        self._places: Sequence[Place] = ()
        #: Task -> its pool, by number; not those of the first pool.
        self._pool_of: dict[str | None, int] = {}
        #: Whether there is more than one pool.
        self._has_several = False
        #: What is held in each pool; not in the first one, which has the rest.
        self._held: list[int] = []
        self._reserved: list[int] = []
        self._is_outdated = False
        self._update()

    def tasks_changed(self) -> None:
        """Look up the tasks before the next claim, since one was registered or replaced. Safe to call from any thread."""
        self._is_outdated = True

    def _known(self) -> Sequence[Place]:
        if self._is_outdated:
            self._is_outdated = False
            self._update()
        return self._places

    def _update(self) -> None:
        # A pool keeps its number: what is held, and claims on their way, know it by that.
        self._by_pool.update({place.pool: place for place in self._look_up() if place.tasks or place.pool in self._by_pool})
        self._places = tuple(self._by_pool.values())
        self._pool_of = {task: number for number, place in enumerate(self._places) if number for task in place.tasks}
        self._has_several = len(self._places) > 1
        new = [0] * (len(self._places) - len(self._held))
        self._held += new
        self._reserved += new

    @property
    def slots(self) -> int:
        """Handlers at a time."""
        return sum(place.size for place in self._known())

    def take(self, came: Iterable[Held]) -> None:
        """These are held from now on."""
        for held in came if self._has_several else ():
            if pool := self._pool_of.get(held.task):
                held.pool = pool
                self._held[pool] += 1

    def drop(self, over: Iterable[Held]) -> None:
        """These are not held any more. May be repeated."""
        for held in over if self._has_several else ():
            if held.pool:
                self._held[held.pool] -= 1
                held.pool = 0

    def offer(self, held: int, leaving: Sequence[Held] = ()) -> list[Room]:
        """Say what a claim may bring: half of a pool at most, as the other half runs while it is on its way.

        Args:
            held: How many are held, in all pools.
            leaving: Those of them that are settled in front of the claim.
        """
        places = self._known()
        used = list(self._held)
        for each in leaving if self._has_several else ():
            used[each.pool] -= bool(each.pool)
        used[0] = held - len(leaving) - sum(used[1:])
        return [_room(place, taken + reserved) for place, taken, reserved in zip(places, used, self._reserved, strict=True)]

    def reserve(self, rooms: Sequence[Room], limit: int) -> None:
        """A claim is on its way that may bring so many."""
        for pool, room in enumerate(rooms):
            self._reserved[pool] += min(room.free, limit)

    def release(self, rooms: Sequence[Room], limit: int) -> None:
        """It was answered."""
        for pool, room in enumerate(rooms):
            self._reserved[pool] -= min(room.free, limit)


def _room(place: Place, used: int) -> Room:
    # Without `min` and `max`: an idle worker comes here several times for each message.
    ahead, left = place.ahead(), place.size - used
    free, half = left + ahead, (place.size + ahead + 1) // 2
    if free > half:
        free = half
    if free <= 0:
        return Room(place.tasks, 0, 0, place.never_ahead)
    soon = free - left if left > 0 else free
    return Room(place.tasks, free, soon if soon > 0 else 0, place.never_ahead)
