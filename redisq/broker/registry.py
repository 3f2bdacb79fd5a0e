"""The workers that are there: each says so every few seconds, in a key that expires by the server's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redisq.broker.commands import Command
from redisq.broker.queues import Steps
from redisq.broker.replies import texts
from redisq.codec.msgpack import decode_value, encode_value
from redisq.errors import DecodeError
from redisq.types import check_name

__all__ = ["BEAT", "Registry", "announce", "leave", "mark", "present"]

#: Seconds between two signs of life; without one for three times as long a worker is not there any more.
BEAT = 5
_LIFE = 3 * BEAT

#: Seconds that the data's mark stays without a worker.
MARK_KEPT = 24 * 3600


@dataclass(frozen=True, slots=True)
class Registry:
    """The keys and channels that all workers of a namespace share."""

    namespace: str = ""

    def _named(self, name: str) -> str:
        return f"{self.namespace}:redisq:{name}" if self.namespace else f"redisq:{name}"

    @property
    def workers(self) -> str:
        """The set of their names; a name without a sign of life is taken out when the set is read."""
        return self._named("workers")

    def worker(self, name: str) -> str:
        """One worker's sign of life; expires by itself."""
        return self._named(f"worker:{name}")

    @property
    def mark(self) -> str:
        """The data's mark: who made it first. Another one means that the data were lost; expires a day after the last worker."""
        return self._named("mark")

    @property
    def control(self) -> str:
        """The channel on which workers are asked things."""
        return self._named("control")

    def reply(self, call: str) -> str:
        """The channel on which they answer one call."""
        return self._named(f"reply:{check_name('call', call)}")


def announce(registry: Registry, name: str, about: Mapping[str, Any]) -> tuple[Command[Any], ...]:
    """Say that a worker is there, and what it is."""
    return (
        Command("", None, ("SET", registry.worker(name), encode_value(dict(about)), "EX", _LIFE), _nothing),
        Command("", None, ("SADD", registry.workers, name), _nothing),
    )


def mark(registry: Registry, new: str) -> tuple[Command[Any], ...]:
    """Read the data's mark, by the last of these commands; when there is none, it is `new`."""
    return (
        Command("", None, ("SET", registry.mark, new, "NX", "EX", MARK_KEPT), _nothing),
        Command("", None, ("PEXPIRE", registry.mark, MARK_KEPT * 1000), _nothing),
        Command("", None, ("GET", registry.mark), bytes),
    )


def leave(registry: Registry, name: str) -> tuple[Command[Any], ...]:
    """Say that it is there no more."""
    return (
        Command("", None, ("DEL", registry.worker(name)), _nothing),
        Command("", None, ("SREM", registry.workers, name), _nothing),
    )


def present(registry: Registry, *, forget: bool = True) -> Steps[dict[str, dict[str, Any]]]:
    """Read which workers are there, by name, and what each says of itself. `forget`: names without a sign of life go."""
    names: list[str] = yield Command("", None, ("SMEMBERS", registry.workers), _names)
    if not names:
        return {}
    signs: list[Any] = yield Command("", None, ("MGET", *(registry.worker(name) for name in names)), list)
    gone = [name for name, sign in zip(names, signs, strict=True) if sign is None]
    if gone and forget:
        yield Command("", None, ("SREM", registry.workers, *gone), _nothing)
    if not forget:
        return _present(names, signs)
    yield from _shorten([registry.worker(name) for name, sign in zip(names, signs, strict=True) if sign is not None])
    return _present(names, signs)


def _present(names: Sequence[str], signs: Sequence[bytes | None]) -> dict[str, dict[str, Any]]:
    return {name: _read(sign) for name, sign in zip(names, signs, strict=True) if sign is not None}


def _shorten(signs: Sequence[str]) -> Steps[None]:
    """Let no sign of life last longer than one that is given now.

    One that does is from before the server's clock was set back. A worker that is there gives a new one within `BEAT`
    seconds; one that is gone must not be shown for as long as the clock was set back by.
    """
    left: list[Any] = []
    if signs:
        left = yield tuple(Command("", None, ("PTTL", sign), int) for sign in signs)
    too_long = [sign for sign, ms in zip(signs, left, strict=True) if isinstance(ms, int) and ms > _LIFE * 1000]
    if too_long:
        yield tuple(Command("", None, ("PEXPIRE", sign, _LIFE * 1000), _nothing) for sign in too_long)


def _read(sign: bytes) -> dict[str, Any]:
    try:
        about = decode_value(sign)
    except DecodeError:
        about = None
    return about if isinstance(about, dict) else {}


def _names(reply: Any) -> list[str]:
    return sorted(texts(reply))


def _nothing(_reply: Any) -> None:
    return None
