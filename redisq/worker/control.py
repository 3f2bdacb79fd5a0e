"""What any process may ask of the workers: who is there, what runs, cancel this, stop. Over one channel, answered on another.

It holds no state and starts nothing: a question that is lost, because Redis was away, is asked again by who asked it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from redisq.broker.commands import Command
from redisq.broker.connector import AsyncConnector
from redisq.broker.registry import BEAT, Registry, announce, leave, mark
from redisq.cancelling import end_tasks
from redisq.codec.msgpack import decode_value, encode_value
from redisq.errors import BrokerError, DecodeError, RedisqError
from redisq.message import new_id
from redisq.troubles import Troubles

__all__ = ["SIGN_OFF", "Control"]

#: Answers one kind of question: gets its arguments, returns plain values; None: nothing to say.
Answer = Callable[[Mapping[str, Any]], Any]

#: Seconds after which a worker shows that it is there, though it does not hear yet.
HEARS_WITHIN = 2.0

#: Seconds to sign off.
SIGN_OFF = 1.0

_SHOW = "show a sign of life (`redisq workers`)"
_ANSWER = "answer questions"
_LISTEN = "hear questions (`redisq workers`, `cancel`, `shutdown`)"


class Control:
    """One worker's ear and voice.

    Args:
        connector: For answers and signs of life.
        registry: The shared keys and channels.
        worker: The worker's name.
        about: Returns what the worker says of itself in each sign of life.
        answers: What it can be asked, by name.
        troubles: Told what does not work.
        log: The worker's logger.
    """

    def __init__(
        self,
        connector: AsyncConnector,
        registry: Registry,
        worker: str,
        about: Callable[[], Mapping[str, Any]],
        answers: Mapping[str, Answer],
        troubles: Troubles,
        log: logging.Logger,
    ) -> None:
        self._connector = connector
        self._registry = registry
        self._worker = worker
        self._about = about
        self._answers = answers
        self._log = log
        self._troubles = troubles
        self._mark: bytes | None = None
        self._hears = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Listen, and show signs of life, from now on."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._show_life())]

    async def stop(self, patience: float = SIGN_OFF) -> None:
        """Be there no more. Redis has so many seconds to hear of it."""
        await end_tasks(self._tasks)
        try:
            async with asyncio.timeout(patience):
                await self._connector.execute_many(leave(self._registry, self._worker))
        except (TimeoutError, BrokerError) as error:
            self._log.debug("Could not sign off, the sign of life expires: %s", error)

    async def _show_life(self) -> None:
        # Who is listed is asked, and would seem not to answer. But a worker that hears nothing is there all the same.
        with suppress(TimeoutError):
            # Not `wait_for`, which in Python 3.11 can swallow a cancellation.
            async with asyncio.timeout(HEARS_WITHIN):
                await self._hears.wait()
        while True:
            try:
                await self._show()
            except Exception:  # noqa: BLE001 - logged, and tried again
                self._log.exception("Could not show a sign of life")
            await asyncio.sleep(BEAT)

    async def _show(self) -> None:
        signs = announce(self._registry, self._worker, self._about())
        *results, seen = await self._connector.execute_many((*signs, *mark(self._registry, new_id())))
        self._look_at_mark(seen)
        results.append(seen)
        if errors := [result for result in results if isinstance(result, BrokerError)]:
            self._troubles.met(_SHOW, errors[0])
        else:
            self._troubles.over(_SHOW)
        if self._hears.is_set():
            self._troubles.over(_LISTEN)

    def _look_at_mark(self, seen: bytes | BrokerError) -> None:
        if isinstance(seen, BrokerError):
            return
        if self._mark not in (None, seen):
            self._log.warning(
                "Redis has lost its data: key %s is not the one of before. Messages that waited, and counters and limits,"
                " are gone. Causes: FLUSHALL, a restart without appendonly, a failover to an empty replica, eviction;"
                " see `redisq doctor`",
                self._registry.mark,
            )  # fmt: skip
        self._mark = seen

    async def _listen(self) -> None:
        while True:
            try:
                async for raw in self._connector.messages(self._registry.control, self._hears, self._refused):
                    await self._reply_to(raw)
            except Exception:  # noqa: BLE001 - logged, and tried again
                self._log.exception("Could not hear questions")
            await asyncio.sleep(1.0)

    def _refused(self, error: BrokerError) -> None:
        self._troubles.met(_LISTEN, error)

    async def _reply_to(self, raw: bytes) -> None:
        try:
            reply = self._answer(raw)
            if reply is not None:
                await self._connector.execute(reply)
                self._troubles.over(_ANSWER)
        except BrokerError as error:
            self._troubles.met(_ANSWER, error)
        except RedisqError as error:
            self._log.warning("Could not answer a question: %s", error)
        except Exception:  # noqa: BLE001 - logged
            # Whoever asks what makes no sense: the next one may.
            self._log.exception("Could not answer a question")

    def _answer(self, raw: bytes) -> Command[Any] | None:
        """Answer one question, if it is for this worker."""
        match decode_value(raw):
            case {"ask": str(name), "call": str(call), "workers": None | [*_] as workers, "arguments": dict(arguments)}:
                channel = self._registry.reply(call)
            case other:
                raise DecodeError(f"not a question: {type(other).__name__}")
        known = self._answers.get(name)
        if workers is not None and self._worker not in workers:
            answer = None
        elif known is None:
            answer = {"error": f"worker {self._worker} cannot be asked for {name!r}"}
        else:
            answer = known(arguments)
        reply = encode_value({"worker": self._worker, "answer": answer})
        return Command("", None, ("PUBLISH", channel, reply), _nothing)


def _nothing(_reply: Any) -> None:
    return None
