"""How much room a worker says that it has."""

from __future__ import annotations

from redisq.broker.commands import Room
from redisq.broker.keys import QueueKeys
from redisq.message import Delivery
from redisq.worker.held import Held
from redisq.worker.rooms import Place, Rooms


def place(size: int, *tasks: str, ahead: int = 0, pool: str = "") -> Place:
    return Place(pool or f"that of {size}", size, tasks, lambda: ahead)


def rooms_of(*places: Place) -> Rooms:
    return Rooms(lambda: places)


def held(task: str | None, rooms: Rooms) -> Held:
    each = Held(QueueKeys("q"), Delivery("a", 7, b""))
    each.task = task
    rooms.take([each])
    return each


def free(rooms: list[Room]) -> list[int]:
    return [room.free for room in rooms]


def test_a_claim_is_offered_half_of_a_pool() -> None:
    assert free(rooms_of(place(9, "a"), place(4, "s")).offer(0)) == [5, 2]


def test_what_is_held_takes_room_in_its_pool_until_it_is_dropped() -> None:
    rooms = rooms_of(place(9, "a"), place(4, "s"))
    some = [held(task, rooms) for task in ("a", "s", "s", "s", "unknown", None)]
    assert free(rooms.offer(len(some))) == [5, 1]
    rooms.drop(some[1:2])
    rooms.drop(some[1:2])
    assert free(rooms.offer(len(some) - 1)) == [5, 2]
    many = [*some[2:], *(held("a", rooms) for _ in range(6))]
    assert free(rooms.offer(len(many))) == [1, 2]


def test_what_the_same_trip_settles_takes_no_room() -> None:
    rooms = rooms_of(place(2, "a"), place(2, "s", pool="threads"))
    some = [held(task, rooms) for task in ("a", "a", "s", "s")]
    assert free(rooms.offer(4)) == [0, 0]
    assert free(rooms.offer(4, some[:1])) == [1, 0]
    assert free(rooms.offer(4, some[3:])) == [0, 1]


def test_what_a_claim_on_its_way_may_bring_takes_room() -> None:
    rooms = rooms_of(place(8, "a"), place(4, "s"))
    offer = rooms.offer(0)
    rooms.reserve(offer, 3)
    assert free(rooms.offer(0)) == [4, 2]
    rooms.reserve(offer, 4)
    assert free(rooms.offer(0)) == [1, 0]
    rooms.release(offer, 3)
    rooms.release(offer, 4)
    assert free(rooms.offer(0)) == [4, 2]


def test_what_begins_soon_is_told_apart_from_what_begins_at_once() -> None:
    rooms = rooms_of(place(4, "s", ahead=6))
    assert rooms.offer(0) == [Room(("s",), 5, 1)]
    assert rooms.offer(3) == [Room(("s",), 5, 4)]
    assert rooms.offer(8) == [Room(("s",), 2, 2)]
    assert rooms.offer(12) == [Room(("s",), 0, 0)]


def test_all_slots_count() -> None:
    assert rooms_of(place(9, "a"), place(4, "s")).slots == 13


def test_a_late_task_has_the_room_of_its_pool() -> None:
    places = [place(9, "a", pool="loop"), place(4, pool="threads"), place(2, "p", pool="processes")]
    rooms = Rooms(lambda: places)
    early = [held(task, rooms) for task in ("late", "p")]
    on_its_way = rooms.offer(2)
    rooms.reserve(on_its_way, 1)
    places[1] = place(4, "late", pool="threads")
    assert [room.tasks for room in rooms.offer(2)] == [("a",), ("p",)], "nobody said that there is a new one"
    rooms.tasks_changed()
    assert [room.tasks for room in rooms.offer(2)] == [("a",), ("p",), ("late",)]
    assert rooms.slots == 15
    rooms.release(on_its_way, 1)
    late = [held("late", rooms) for _ in range(3)]
    # Of those in the first pool one is held, the late one that came before.
    assert free(rooms.offer(5)) == [5, 1, 1]
    rooms.drop([*early, *late])
    assert free(rooms.offer(0)) == [5, 1, 2]


def test_a_task_that_moves_to_another_pool_frees_the_room_that_it_had() -> None:
    places = [place(9, "a", pool="loop"), place(4, "s", pool="threads")]
    rooms = Rooms(lambda: places)
    before = [held("s", rooms) for _ in range(4)]
    assert free(rooms.offer(4)) == [5, 0]
    places[:] = [place(9, "a", "s", pool="loop"), place(4, pool="threads")]
    rooms.tasks_changed()
    assert free(rooms.offer(4)) == [5, 0]
    rooms.drop(before)
    assert [room.tasks for room in rooms.offer(0)] == [("a", "s"), ()]
    assert free(rooms.offer(0)) == [5, 2]
