"""The message: what one call of a task is on its way to a worker."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from redisq.errors import DecodeError

__all__ = [
    "Delivery", "Message", "Meta", "check_id", "head_start_of", "new_id", "new_ids", "parse_meta", "with_head_start",
]  # fmt: skip

_ID_BYTES = 12
_TOLD = re.compile(r"[A-Za-z0-9]{16}([pm])([0-9]{1,16})(u?)", re.ASCII)

# Ids have to be unique, not secret. Seeded by the system, anew in a forked child, and never by a test or a bot that
# seeds `random`: then its next run would make the same ids, and an id that is in the queue already is no new message.
_RANDOM = Random()  # noqa: S311 - no secret
os.register_at_fork(after_in_child=_RANDOM.seed)


def new_ids(count: int) -> list[str]:
    """Return new message ids: 16 letters and digits each, 95 random bits, safe after a fork."""
    raw = _RANDOM.randbytes(_ID_BYTES * count)
    # A letter each instead of + and /: an id is a word in a shell, and never looks like an option.
    text = b64encode(raw, b"xz").decode()
    return [text[at : at + 16] for at in range(0, len(text), 16)]


def new_id() -> str:
    """Return one new message id."""
    return new_ids(1)[0]


def with_head_start(id: str, head_start: int) -> str:
    """Return a new id that tells its message's head start, by which its place in the queue differs from its time.

    `gcg6BQSKo4iijm7Wp540`: its priority puts the message 540 s ahead; `...m540`: it stands back so much; `...p5u`: 5
    microseconds. A message without a head start keeps the plain id. So the time since which a message waits is known for
    free: its place has the time less the head start.
    """
    if not head_start:
        return id
    seconds, rest = divmod(abs(head_start), 1_000_000)
    return f"{id}{'p' if head_start > 0 else 'm'}{f'{abs(head_start)}u' if rest else seconds}"


def head_start_of(id: str) -> int:
    """Return the head start that an id tells, in microseconds; 0 for one that tells none."""
    match = _TOLD.fullmatch(id)
    if not match:
        return 0
    value = int(match[2]) * (1 if match[3] else 1_000_000)
    return value if match[1] == "p" else -value


class Message(NamedTuple):
    """What a worker needs to run one call: the task's name and its arguments."""

    task: str
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] | None = None


#: Stands between the error of a dead letter and its stack. No error text has it: control characters are written out there.
STACK_MARK = "\x1f"


class Meta(NamedTuple):
    """What the queue knows of a message beside its body; the defaults are those of a plain first delivery.

    Attributes:
        attempt: The number of its next or present run, from 1. Only failed runs count.
        crashes: How often its lease ended by expiry: a worker died, or hung.
        parks: How often it was put aside, because no worker knew what to do with it.
        reason: One word on why it waits or died, e.g. `failed`, `exhausted`, `crashed`, `unknown_task`.
        text: The error, in words, on one line.
        expires: When it is dropped if it was not leased by then, in microseconds since the epoch; 0: never.
        requeues: How often a consumer of the kombu transport put it back on purpose.
        stack: Of a dead letter: where the error was raised, a frame a line, the innermost last; empty when not known.
    """

    attempt: int = 1
    crashes: int = 0
    parks: int = 0
    reason: str = ""
    text: str = ""
    expires: int = 0
    requeues: int = 0
    stack: str = ""

    @staticmethod
    def text_with(text: str, stack: str) -> str:
        """Return an error and its stack as they stand in a record."""
        return f"{text}{STACK_MARK}{stack}"


PLAIN = Meta()


def check_id(delivery: Delivery) -> None:
    """Check that the id of a message is text: one that another program wrote may be any bytes.

    Raises:
        DecodeError: It is not.
    """
    try:
        delivery.id.encode()
    except UnicodeEncodeError:
        raise DecodeError("its id is not UTF-8: another program wrote it; `redisq dead drop` removes it") from None


def parse_meta(raw: bytes) -> Meta:
    """Read a meta record, `attempt=2 reason=failed text=ValueError: no`. What cannot be read is passed over."""
    if not raw:
        return PLAIN
    head, _, rest = raw.decode("utf-8", "replace").partition("text=")
    text, _, stack = rest.partition(STACK_MARK)
    fields = dict(part.split("=", 1) for part in head.split() if "=" in part)
    numbers = {name: int(value) for name, value in fields.items() if value.isdecimal() and len(value) < 20}
    return Meta(
        numbers.get("attempt", 1),
        numbers.get("crashes", 0),
        numbers.get("parks", 0),
        fields.get("reason", ""),
        text,
        numbers.get("expires", 0),
        numbers.get("requeues", 0),
        stack,
    )


class Delivery(NamedTuple):
    """One message under a lease.

    Attributes:
        id: The message's id.
        fence: The lease's number. Whoever settles or extends must name it.
        body: The encoded message.
        meta: Attempt number and what else is known.
    """

    id: str
    fence: int
    body: bytes
    meta: Meta = PLAIN
