"""How far a job is, as its handler says: a small record in Redis that goes by itself."""

from __future__ import annotations

from typing import NamedTuple

from redisq.codec.msgpack import decode_value, encode_value
from redisq.errors import DecodeError, MessageTooLarge

__all__ = ["KEPT", "Progress", "read_progress"]

#: Seconds that a job's last progress is kept after it was told; long enough to look at it when the job is over.
KEPT = 3600

#: Characters of a note that are kept.
MAX_NOTE = 500


class Progress(NamedTuple):
    """How far a job was when its handler last said so.

    Attributes:
        done: Of what there is to do, in whatever the handler counts.
        total: All there is to do; None: not known.
        note: The handler's own words.
        attempt: The attempt that said so, from 1.
    """

    done: float
    total: float | None = None
    note: str = ""
    attempt: int = 1

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None when the total is not known."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None

    def __str__(self) -> str:
        counted = f"{self.done:g}" if self.total is None else f"{self.done:g} of {self.total:g}"
        return f"{counted}, {self.note}" if self.note else counted

    @classmethod
    def checked(cls, done: float, total: float | None, note: str | None, attempt: int) -> Progress:
        """Return it if it can be kept.

        Raises:
            TypeError: `done` or `total` is not a number, or the note is not text.
        """
        numbers = (done,) if total is None else (done, total)
        if not all(isinstance(number, int | float) for number in numbers) or not isinstance(note, str | None):
            raise TypeError(f"progress({done!r}, {total!r}, {note!r}): want numbers and text")
        return cls(float(done), None if total is None else float(total), (note or "")[:MAX_NOTE], attempt)

    def packed(self) -> bytes:
        """Return it as it is kept."""
        return encode_value(list(self))


def read_progress(raw: bytes | None) -> Progress | None:
    """Return what was kept; None when there is nothing, or what another version wrote."""
    if raw is None:
        return None
    try:
        done, total, note, attempt, *_ = decode_value(raw)
        return Progress(float(done), None if total is None else float(total), str(note), int(attempt))
    except (DecodeError, MessageTooLarge, TypeError, ValueError):
        return None
