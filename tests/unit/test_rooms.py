"""How much room a worker says that it has."""

from __future__ import annotations

from redisq.broker.commands import Room
from redisq.broker.keys import QueueKeys
from redisq.message import Delivery
from redisq.worker.held import Held
from redisq.worker.rooms import Place, Rooms


def place(size: int, *tasks: str, ahead: int = 0) -> Place:
    return Place(size, tasks, lambda: ahead)


def held(task: str | None, rooms: Rooms) -> Held:
    each = Held(QueueKeys("q"), Delivery("a", 7, b""))
    each.task = task
    rooms.take([each])
    return each


def free(rooms: list[Room]) -> list[int]:
    return [room.free for room in rooms]


def test_a_claim_is_offered_half_of_a_pool() -> None:
    assert free(Rooms([place(9, "a"), place(4, "s")]).offer(0)) == [5, 2]


def test_what_is_held_takes_room_in_its_pool_until_it_is_dropped() -> None:
    rooms = Rooms([place(9, "a"), place(4, "s")])
    some = [held(task, rooms) for task in ("a", "s", "s", "s", "unknown", None)]
    assert free(rooms.offer(len(some))) == [5, 1]
    rooms.drop(some[1:2])
    rooms.drop(some[1:2])
    assert free(rooms.offer(len(some) - 1)) == [5, 2]
    many = [*some[2:], *(held("a", rooms) for _ in range(6))]
    assert free(rooms.offer(len(many))) == [1, 2]


def test_what_the_same_trip_settles_takes_no_room() -> None:
    rooms = Rooms([place(2, "a"), place(2, "s")])
    some = [held(task, rooms) for task in ("a", "a", "s", "s")]
    assert free(rooms.offer(4)) == [0, 0]
    assert free(rooms.offer(4, some[:1])) == [1, 0]
    assert free(rooms.offer(4, some[3:])) == [0, 1]


def test_what_a_claim_on_its_way_may_bring_takes_room() -> None:
    rooms = Rooms([place(8, "a"), place(4, "s")])
    offer = rooms.offer(0)
    rooms.reserve(offer, 3)
    assert free(rooms.offer(0)) == [4, 2]
    rooms.reserve(offer, 4)
    assert free(rooms.offer(0)) == [1, 0]
    rooms.release(offer, 3)
    rooms.release(offer, 4)
    assert free(rooms.offer(0)) == [4, 2]


def test_what_begins_soon_is_told_apart_from_what_begins_at_once() -> None:
    rooms = Rooms([place(4, "s", ahead=6)])
    assert rooms.offer(0) == [Room(("s",), 5, 1)]
    assert rooms.offer(3) == [Room(("s",), 5, 4)]
    assert rooms.offer(8) == [Room(("s",), 2, 2)]
    assert rooms.offer(12) == [Room(("s",), 0, 0)]


def test_all_slots_count() -> None:
    assert Rooms([place(9, "a"), place(4, "s")]).slots == 13
