"""Ask the workers: who is there, what runs, cancel, stop. Pause and resume queues, lanes and limits, and set these."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from redisq.app import limits
from redisq.app.limits import LimitState
from redisq.app.waiting import Ask, Step, arun, run
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.registry import Registry, present
from redisq.codec.msgpack import decode_value, encode_value
from redisq.message import new_id
from redisq.types import Seconds

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

    def pause(self, queue: str, *, limit: str | None = None, lane: object = None, seconds: Seconds | None = None) -> None:
        """Let no worker claim from a queue, or nothing that needs a limit or is in a lane. What runs goes on, what is sent waits.

        Args:
            queue: The queue.
            limit: A limit (`bot`), or its instance for one chat (`chat:42`), instead of all of the queue.
            lane: The key of a lane instead.
            seconds: For so long, or a `timedelta`; None: until it is resumed. For a limit or a lane only.

        Raises:
            ConfigError: The arguments do not go together.
        """
        run(limits.pause(self._owner.keys(queue), limit, lane, seconds), self._owner.connector)

    async def apause(self, queue: str, *, limit: str | None = None, lane: object = None, seconds: Seconds | None = None) -> None:
        """As `pause`."""
        await arun(limits.pause(self._owner.keys(queue), limit, lane, seconds), self._owner.async_connector)

    def resume(self, queue: str, *, limit: str | None = None, lane: object = None) -> None:
        """Let workers claim again: from the queue, past a limit, or from a lane. Also ends the pause after a 429."""
        run(limits.resume(self._owner.keys(queue), limit, lane), self._owner.connector)

    async def aresume(self, queue: str, *, limit: str | None = None, lane: object = None) -> None:
        """As `resume`."""
        await arun(limits.resume(self._owner.keys(queue), limit, lane), self._owner.async_connector)

    def limits(self, queue: str) -> list[LimitState]:
        """Return how the limits of a queue stand, and each of their instances and lanes that is paused, waited at, or in use."""
        return run(limits.limits_of(self._owner.keys(queue)), self._owner.connector)

    async def alimits(self, queue: str) -> list[LimitState]:
        """As `limits`."""
        return await arun(limits.limits_of(self._owner.keys(queue)), self._owner.async_connector)

    def set_limit(self, queue: str, limit: str, rule: str) -> str:
        """Set the rule of a limit, for what waits too; it goes before the one in the code. Returns it as it is shown.

        Args:
            queue: The queue.
            limit: Its name, `bot`, or an instance of it, `chat:42`.
            rule: `30/s`, `20/m burst 3`, `8 at once`.

        Raises:
            ConfigError: It is no rule.
        """
        return run(limits.set_rule(self._owner.keys(queue), limit, rule), self._owner.connector)

    async def aset_limit(self, queue: str, limit: str, rule: str) -> str:
        """As `set_limit`."""
        return await arun(limits.set_rule(self._owner.keys(queue), limit, rule), self._owner.async_connector)

    def clear_limit(self, queue: str, limit: str) -> None:
        """Let the rule in the code, or that of the limit for all instances, hold again."""
        run(limits.clear(self._owner.keys(queue), limit), self._owner.connector)

    async def aclear_limit(self, queue: str, limit: str) -> None:
        """As `clear_limit`."""
        await arun(limits.clear(self._owner.keys(queue), limit), self._owner.async_connector)

    def _ask(self, name: str, **arguments: Any) -> Answers:
        return run(question(self._owner.registry, name, arguments), self._owner.connector)

    async def _aask(self, name: str, **arguments: Any) -> Answers:
        return await arun(question(self._owner.registry, name, arguments), self._owner.async_connector)
