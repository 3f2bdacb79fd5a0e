"""An annotation that only a type checker can resolve hides none of the others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from redisq.codec.hints import shape_of

if TYPE_CHECKING:
    from somewhere import Unknown


class Mood(Enum):
    GOOD = "good"


@dataclass
class Update:
    mood: Mood
    raw: Unknown


def test_the_other_parameters_of_a_handler_are_brought_back() -> None:
    def answer(client: Unknown, mood: Mood, update: Update) -> Unknown: ...

    args, _ = shape_of(answer).revive([1, "good", {"mood": "good", "raw": 2}], {})
    assert list(args) == [1, Mood.GOOD, Update(Mood.GOOD, 2)]


def test_the_fields_of_a_base_class_are_brought_back() -> None:
    @dataclass
    class Edited(Update):
        again: Mood

    def answer(update: Any) -> None: ...

    answer.__annotations__["update"] = Edited
    args, _ = shape_of(answer).revive([{"mood": "good", "raw": 2, "again": "good"}], {})
    assert args[0] == Edited(Mood.GOOD, 2, Mood.GOOD)
