"""The job: one call of a task, as its caller holds it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from redisq.app.control import question
from redisq.app.progress import Progress, read_progress
from redisq.app.settings import Settings
from redisq.app.waiting import Step, arun, run, wait_for
from redisq.broker import commands
from redisq.broker.commands import Found
from redisq.broker.connector import AsyncConnector, Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.registry import Registry
from redisq.clocks import monotonic
from redisq.codec.msgpack import decode_value
from redisq.errors import JobFailed, NoResult
from redisq.states import State
from redisq.types import Seconds, microseconds

__all__ = ["Job"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    # `Job` alone means `Job[Any]` to type checkers; before Python 3.13 typing itself has no word for that.
    R_co = TypeVar("R_co", covariant=True)

_CANCELLABLE = (State.WAITING, State.DELAYED, State.RETRY)
#: A job that changes hands between two steps of a cancel is looked for again, so often.
_LOOKS = 5


class Owner(Protocol):
    """What a job needs of its app."""

    settings: Settings
    registry: Registry

    @property
    def connector(self) -> Connector:
        """For sync code."""

    @property
    def async_connector(self) -> AsyncConnector:
        """For async code."""

    def keys(self, queue: str) -> QueueKeys:
        """The keys of a queue."""


class Job(Generic[R_co]):
    """One call of a task. `Job[str]`: one whose handler returns text.

    Attributes:
        id: Its message's id.
        task: The task's name.
        queue: The queue that it was sent to.
    """

    __slots__ = ("_build", "_owner", "id", "queue", "task")

    def __init__(self, owner: Owner, id: str, task: str, queue: str, build: Callable[[Any], Any] | None = None) -> None:
        self._owner = owner
        self._build = build
        self.id = id
        self.task = task
        self.queue = queue

    def __repr__(self) -> str:
        return f"<job {self.id} of task {self.task} on queue {self.queue}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.id, self.queue) == (other.id, other.queue)

    def __hash__(self) -> int:
        return hash((self.id, self.queue))

    def state(self) -> State:
        """Return where it is now. `done` only if its result is kept; else what is not there any more is `gone`.

        Raises:
            BrokerError: Redis did not say.
        """
        return run(self._state(), self._owner.connector)

    async def astate(self) -> State:
        """Return where it is now. As `state`."""
        return await arun(self._state(), self._owner.async_connector)

    def position(self) -> int | None:
        """Return its place among the waiting, from 1; None when it does not wait for a worker.

        In a lane it is the lane's place among all that wait, plus the calls of its own lane that are before it. Other lanes
        take turns in between, so more calls than that may start first. While a call of the lane runs, the next one is
        counted behind all that wait now, as if that call ended at once.

        Raises:
            BrokerError: Redis did not say.
        """
        return run(self._position(), self._owner.connector)

    async def aposition(self) -> int | None:
        """Return its place among the waiting. As `position`."""
        return await arun(self._position(), self._owner.async_connector)

    def progress(self) -> Progress | None:
        """Return how far it is, as its handler last said by `Context.progress`; None: it said nothing in the last hour.

        Raises:
            BrokerError: Redis did not say.
        """
        return run(self._progress(), self._owner.connector)

    async def aprogress(self) -> Progress | None:
        """Return how far it is. As `progress`."""
        return await arun(self._progress(), self._owner.async_connector)

    def get(self, timeout: Seconds | None = None) -> R_co:
        """Wait for what its handler returns. The task needs `result_ttl=`.

        Args:
            timeout: Seconds to wait at most; None: until there is an outcome.

        Raises:
            JobTimeout: It is not done yet. It goes on.
            JobFailed: It is a dead letter.
            NoResult: It has no result: its task keeps none, it was cancelled, or it has expired.
            BrokerError: Redis did not say.
        """
        return run(self._get(timeout), self._owner.connector)

    async def aget(self, timeout: Seconds | None = None) -> R_co:  # noqa: ASYNC109 - the name that Celery's users know
        """Wait for what its handler returns. As `get`."""
        return await arun(self._get(timeout), self._owner.async_connector)

    def cancel(self) -> bool:
        """Take it out of its queue; or, when it runs, have it stopped. False: it is over, or a dead letter.

        True means that it does not run again, whatever becomes of its worker. A worker that hears of it stops it at once,
        one that does not, because it was away, when it next extends its leases. A coroutine is cancelled, a child process
        killed; a function in a thread gets `TaskCancelled` when it next runs Python code. What its handler did so far stays
        done, and one that returns or fails for good before it is stopped is `done` or `dead`.

        Raises:
            BrokerError: Redis did not say.
        """
        return run(self._cancel(), self._owner.connector)

    async def acancel(self) -> bool:
        """Take it out of its queue, or stop it. As `cancel`."""
        return await arun(self._cancel(), self._owner.async_connector)

    @property
    def _keys(self) -> QueueKeys:
        return self._owner.keys(self.queue)

    def _state(self) -> Generator[Step, Any, State]:
        found = yield commands.find(self._keys, self.id)
        if found:
            return State(found.state)
        outcome = yield commands.outcome(self._keys, self.id)
        return State.DONE if outcome.state == "done" else State.GONE

    def _position(self) -> Generator[Step, Any, int | None]:
        found = yield commands.find(self._keys, self.id)
        return found.position if found and found.state == State.WAITING else None

    def _progress(self) -> Generator[Step, Any, Progress | None]:
        return read_progress((yield commands.progress(self._keys, self.id)))

    def _cancel(self) -> Generator[Step, Any, bool]:
        for _ in range(_LOOKS):
            removed: list[str] = yield commands.remove(self._keys, (self.id,), counter="cancelled", states=_CANCELLABLE)
            if removed:
                return True
            marked: list[str] = yield commands.cancel(self._keys, (self.id,))
            if marked:
                # The mark is what counts; the question only makes it quick.
                yield from question(self._owner.registry, "cancel", {"id": self.id})
                return True
            found: Found | None = yield commands.find(self._keys, self.id)
            if not found or found.state == State.DEAD:
                return False
        return False

    def _get(self, timeout: Seconds | None) -> Generator[Step, Any, R_co]:
        seconds = None if timeout is None else microseconds(timeout, "timeout") / 1_000_000
        outcome = yield from wait_for(self._keys, self.id, seconds, monotonic)
        if outcome.state == "done":
            value = decode_value(outcome.result, self._owner.settings.max_bytes)
            returned: R_co = self._build(value) if self._build else value
            return returned
        if outcome.state == "dead":
            raise JobFailed(self.id, outcome.meta.reason, outcome.meta.text)
        raise NoResult(
            f"job {self.id} of task {self.task} has no result: the task keeps none (give it result_ttl=), "
            "or the job was cancelled, or it expired, or its result did"
        )
