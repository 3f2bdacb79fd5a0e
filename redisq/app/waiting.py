"""Several steps towards one answer, written once as a generator, and its two drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from redisq.broker import commands
from redisq.broker.commands import Command, Outcome
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.errors import JobTimeout

__all__ = ["Ask", "Listen", "Step", "arun", "run", "wait_for"]

T = TypeVar("T")

#: However good the push is, look again after so many seconds.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Step: the first time, subscribe; after that, wait until the channel is spoken on, or for so many seconds."""

    channel: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Step: ask all who listen on a channel, and collect what they answer within the seconds."""

    channel: str
    reply_channel: str
    question: bytes
    seconds: float


#: A command; several that are sent in one write, each answered by its result or its `BrokerError`; or a pause.
Step = Command[Any] | tuple[Command[Any], ...] | Listen | Ask


def wait_for(keys: QueueKeys, job_id: str, seconds: float | None, now: Callable[[], float]) -> Generator[Step, Any, Outcome]:
    """Wait until a job has an outcome.

    Raises:
        JobTimeout: It has none within the seconds.
    """
    deadline = None if seconds is None else now() + seconds
    while True:
        outcome: Outcome = yield commands.outcome(keys, job_id)
        if outcome.state != "open":
            return outcome
        left = LOOK if deadline is None else min(LOOK, deadline - now())
        if left <= 0:
            raise JobTimeout(f"job {job_id} is not done after {seconds:g} s; it goes on")
        yield Listen(keys.done(job_id), left)


def run(steps: Generator[Step, Any, T], connector: Connector) -> T:
    """Carry the steps out, blocking."""
    listener = None
    with ExitStack() as stack:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Command):
                    step = steps.send(connector.execute(step))
                    continue
                if isinstance(step, tuple):
                    step = steps.send(connector.execute_many(step))
                    continue
                if isinstance(step, Ask):
                    step = steps.send(connector.ask(step.channel, step.reply_channel, step.question, step.seconds))
                    continue
                if listener is None:
                    listener = stack.enter_context(connector.listening(step.channel))
                else:
                    listener.wait(step.seconds)
                step = steps.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def arun(steps: Generator[Step, Any, T], connector: AsyncConnector) -> T:
    """Carry the steps out in the running loop."""
    heard = None
    async with AsyncExitStack() as stack:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Command):
                    step = steps.send(await connector.execute(step))
                    continue
                if isinstance(step, tuple):
                    step = steps.send(await connector.execute_many(step))
                    continue
                if isinstance(step, Ask):
                    step = steps.send(await connector.ask(step.channel, step.reply_channel, step.question, step.seconds))
                    continue
                if heard is None:
                    heard = await stack.enter_async_context(connector.listening(step.channel))
                with suppress(TimeoutError):
                    # Not `wait_for`, which in Python 3.11 can swallow a cancellation.
                    async with asyncio.timeout(step.seconds):
                        await heard.wait()
                heard.clear()
                step = steps.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
