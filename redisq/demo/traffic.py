"""The messages of the demo, and what goes wrong with them: the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

__all__ = ["COUNTDOWNS", "PRIORITY", "TALK", "TALKERS", "TOTAL", "ChatMessage", "chat_messages"]

TOTAL = 200
PRIORITY = 9
#: Seconds; ten messages each are sent for later.
COUNTDOWNS = (1, 3, 5, 7)

_URGENT = 20
_LATER = 10 * len(COUNTDOWNS)
_TEXTS = ("Where is my parcel?", "Good morning!", "Can I change my order?", "Thanks, that helped.", "Who am I talking to?")

#: Message -> how the API answers it, each time. The poison is early in the queue, so that there is time for its crashes.
_HOPELESS = {12: "poison", 47: "refused", 81: "broken"}
#: So many chats have so many messages each, in turns; this is the first of these messages, and the API has enough of it.
TALKERS, TALK = 5, 6
_FIRST_OF_TALKERS = 91
#: How the API answers the first time, and how many messages it does that to.
_FAULTS = (("500", 18), ("503", 12), ("silence", 4))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message.

    Attributes:
        number: From 1, in the order in which they are sent.
        chat_id: Whose it is. Most chats have one message.
        text: What it says.
        latency: Seconds that the API takes for it.
        fault: How the API answers the first time; empty: well.
        hopeless: How the API answers each time; empty: well in the end.
        countdown: Seconds until it is due.
        priority: Higher first.
    """

    number: int
    chat_id: int
    text: str
    latency: float
    fault: str = ""
    hopeless: str = ""
    countdown: int = 0
    priority: int = 0


def chat_messages(seed: int = 1) -> Sequence[ChatMessage]:
    """Make them, in the order in which they are sent: those for now, those for later, then those with priority."""
    random = Random(seed)  # noqa: S311  nothing is secret here
    sound = [number for number in range(1, TOTAL + 1) if number not in (*_HOPELESS, _FIRST_OF_TALKERS)]
    faulty = random.sample(sound, sum(count for _, count in _FAULTS))
    kinds = [fault for fault, count in _FAULTS for _ in range(count)]
    faults = {**dict(zip(faulty, kinds, strict=True)), _FIRST_OF_TALKERS: "429"}
    return [
        ChatMessage(
            number,
            _chat(number),
            random.choice(_TEXTS),
            random.uniform(0.05, 0.3),
            faults.get(number, ""),
            _HOPELESS.get(number, ""),
            _countdown(number),
            PRIORITY if number > TOTAL - _URGENT else 0,
        )
        for number in range(1, TOTAL + 1)
    ]


def _chat(number: int) -> int:
    place = number - _FIRST_OF_TALKERS
    return _FIRST_OF_TALKERS + place % TALKERS if 0 <= place < TALKERS * TALK else number


def _countdown(number: int) -> int:
    place = number - (TOTAL - _URGENT - _LATER) - 1
    return COUNTDOWNS[place // 10] if 0 <= place < _LATER else 0
