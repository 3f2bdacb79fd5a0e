"""Ask the workers: who is there, what runs, cancel, stop; pause and resume queues."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from redisq.app.waiting import Ask, Step, arun, run
from redisq.broker import commands
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.registry import Registry, present
from redisq.codec.msgpack import decode_value, encode_value
from redisq.message import new_id

__all__ = ["ANSWER_WITHIN", "Control", "question"]

#: Seconds that workers have for an answer. One that blocks its event loop, or is frozen, does not answer.
ANSWER_WITHIN = 1.0

Answers = dict[str, Any]


def question(
    registry: Registry, name: str, arguments: dict[str, Any], workers: Sequence[str] | None = None
) -> Generator[Step, Any, Answers]:
    """Ask something of the workers (None: of all). Returns what each answered, by its name, where it had an answer."""
    call = new_id()
    asked = {"ask": name, "call": call, "workers": None if workers is None else list(workers), "arguments": arguments}
    raw: list[bytes] = yield Ask(registry.control, registry.reply(call), encode_value(asked), ANSWER_WITHIN)
    answers = [decode_value(answer) for answer in raw]
    return {each["worker"]: each["answer"] for each in answers if each["answer"] is not None}


class Owner(Protocol):
    """What the control needs of its app."""

    registry: Registry

    @property
    def connector(self) -> Connector:
        """For sync code."""

    @property
    def async_connector(self) -> AsyncConnector:
        """For async code."""

    def keys(self, queue: str) -> QueueKeys:
        """The keys of a queue."""


class Control:
    """What any process may ask of an app's workers. Each method has an async twin with an `a` before its name.

    All raise `BrokerError` when Redis cannot be reached. A worker that does not answer within a second is left out.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers that showed a sign of life in the last 15 seconds, and what each says of itself."""
        return run(present(self._owner.registry), self._owner.connector)

    async def aworkers(self) -> dict[str, dict[str, Any]]:
        """As `workers`."""
        return await arun(present(self._owner.registry), self._owner.async_connector)

    def ping(self) -> list[str]:
        """Return the names of the workers that answer now."""
        return sorted(self._ask("ping"))

    async def aping(self) -> list[str]:
        """As `ping`."""
        return sorted(await self._aask("ping"))

    def running(self) -> dict[str, list[dict[str, Any]]]:
        """Return what runs, by worker: id, task, queue, attempt, seconds since its start."""
        return self._ask("running")

    async def arunning(self) -> dict[str, list[dict[str, Any]]]:
        """As `running`."""
        return await self._aask("running")

    def cancel(self, job_id: str) -> bool:
        """Stop a job that runs; False: no worker that answered runs it. `Job.cancel` does this too."""
        return any(self._ask("cancel", id=job_id).values())

    async def acancel(self, job_id: str) -> bool:
        """As `cancel`."""
        return any((await self._aask("cancel", id=job_id)).values())

    def shutdown(self, workers: Sequence[str] | None = None) -> list[str]:
        """Ask workers (None: all) to stop as at SIGTERM. Returns those that do."""
        return sorted(run(question(self._owner.registry, "shutdown", {}, workers), self._owner.connector))

    async def ashutdown(self, workers: Sequence[str] | None = None) -> list[str]:
        """As `shutdown`."""
        return sorted(await arun(question(self._owner.registry, "shutdown", {}, workers), self._owner.async_connector))

    def pause(self, queue: str) -> None:
        """Let no worker claim from a queue. What runs goes on, what is sent waits."""
        self._owner.connector.execute(commands.pause(self._owner.keys(queue), True))

    async def apause(self, queue: str) -> None:
        """As `pause`."""
        await self._owner.async_connector.execute(commands.pause(self._owner.keys(queue), True))

    def resume(self, queue: str) -> None:
        """Let workers claim again."""
        self._owner.connector.execute(commands.pause(self._owner.keys(queue), False))

    async def aresume(self, queue: str) -> None:
        """As `resume`."""
        await self._owner.async_connector.execute(commands.pause(self._owner.keys(queue), False))

    def _ask(self, name: str, **arguments: Any) -> Answers:
        return run(question(self._owner.registry, name, arguments), self._owner.connector)

    async def _aask(self, name: str, **arguments: Any) -> Answers:
        return await arun(question(self._owner.registry, name, arguments), self._owner.async_connector)
