"""What any process may ask of the workers: who is there, what runs, cancel this, stop. Over one channel, answered on another.

It holds no state and starts nothing: a question that is lost, because Redis was away, is asked again by who asked it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from redisq.broker.commands import Command
from redisq.broker.connector import AsyncConnector
from redisq.broker.registry import BEAT, Registry, announce, leave
from redisq.codec.msgpack import decode_value, encode_value
from redisq.errors import BrokerError, DecodeError, RedisqError

__all__ = ["Control"]

#: Answers one kind of question: gets its arguments, returns plain values; None: nothing to say.
Answer = Callable[[Mapping[str, Any]], Any]


class Control:
    """One worker's ear and voice.

    Args:
        connector: For answers and signs of life.
        registry: The shared keys and channels.
        worker: The worker's name.
        about: Returns what the worker says of itself in each sign of life.
        answers: What it can be asked, by name.
        log: The worker's logger.
    """

    def __init__(
        self,
        connector: AsyncConnector,
        registry: Registry,
        worker: str,
        about: Callable[[], Mapping[str, Any]],
        answers: Mapping[str, Answer],
        log: logging.Logger,
    ) -> None:
        self._connector = connector
        self._registry = registry
        self._worker = worker
        self._about = about
        self._answers = answers
        self._log = log
        self._hears = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Listen, and show signs of life, from now on."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._show_life())]

    async def stop(self) -> None:
        """Be there no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(1.0):
                await self._connector.execute_many(leave(self._registry, self._worker))
        except (TimeoutError, BrokerError) as error:
            self._log.debug("Could not sign off, the sign of life expires: %s", error)

    async def _show_life(self) -> None:
        # Who is listed is asked, and would seem not to answer.
        await self._hears.wait()
        while True:
            results = await self._connector.execute_many(announce(self._registry, self._worker, self._about()))
            for result in results:
                if isinstance(result, BrokerError):
                    self._log.warning("Could not show a sign of life: %s", result)
            await asyncio.sleep(BEAT)

    async def _listen(self) -> None:
        async for raw in self._connector.messages(self._registry.control, self._hears):
            try:
                reply = self._answer(raw)
                if reply is not None:
                    await self._connector.execute(reply)
            except RedisqError as error:
                self._log.warning("Could not answer a question: %s", error)

    def _answer(self, raw: bytes) -> Command[Any] | None:
        """Answer one question, if it is for this worker."""
        try:
            question = decode_value(raw)
            name, call, workers, arguments = question["ask"], question["call"], question["workers"], question["arguments"]
            channel = self._registry.reply(call)
        except (DecodeError, KeyError, TypeError) as error:
            raise DecodeError(f"not a question: {type(error).__name__}") from None
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
