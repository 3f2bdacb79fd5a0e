"""The context of a run: what a handler can know of the job that it works on."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from typing import Any

from redisq.app.progress import Progress
from redisq.app.settings import TaskOptions
from redisq.clocks import monotonic
from redisq.message import Delivery

__all__ = ["Context", "Report", "begin_run", "context_of", "current_context", "detached", "end_run"]

#: Takes what a handler says of its progress. Called in the handler's thread; never waits.
Report = Callable[[Progress], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Context:
    """What a handler can know of the job that it works on.

    The first argument of a task with `bind=True`; anywhere below a handler, `redisq.current_context()`.

    Attributes:
        id: The job's id.
        task: The task's name.
        queue: The queue that it came from.
        attempt: The number of this run, from 1. Only failed runs count.
        max_retries: Retries after the first run, as the task is set.
        worker: The worker's name.
        expires: When the job would have been dropped, had it not started by then; None: never. An aware `datetime`.
    """

    __slots__ = ("_report", "_until", "attempt", "expires", "id", "max_retries", "queue", "task", "worker")

    def __init__(
        self,
        id: str,
        task: str,
        queue: str,
        *,
        attempt: int = 1,
        max_retries: int = 0,
        worker: str = "",
        expires: datetime | None = None,
        seconds: float | None = None,
        report: Report = lambda _: None,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt
        self.max_retries = max_retries
        self.worker = worker
        self.expires = expires
        self._until = None if seconds is None else monotonic() + seconds
        self._report = report

    def __repr__(self) -> str:
        return f"<context of task {self.task}[{self.id}], attempt {self.attempt} of {self.max_retries + 1}>"

    @property
    def is_last_attempt(self) -> bool:
        """Whether the job is a dead letter if this run fails."""
        return self.attempt > self.max_retries

    def remaining(self) -> float | None:
        """Return the seconds until the handler is told to stop: its `soft_timeout`, else its `timeout`. None: no end."""
        return None if self._until is None else max(0.0, self._until - monotonic())

    @property
    def deadline(self) -> datetime | None:
        """When the handler is told to stop, by this machine's clock, as an aware `datetime`; None: no end."""
        left = self.remaining()
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the job is: `job.progress()` and `redisq inspect` show it, from any process.

        It costs the handler nothing: it is written by the worker, twice a second at most; of several the last counts. It
        never fails the job: while Redis is away it is lost. It is kept for an hour.

        Args:
            done: Of what there is to do, in whatever you count.
            total: All there is to do, if that is known.
            note: Some words; the first 500 characters are kept.

        Raises:
            TypeError: These are no numbers, or no text.
        """
        self._report(Progress.checked(done, total, note, self.attempt))


#: What gives the context of what runs here. Made only when somebody asks: most handlers never do.
_RUNNING: ContextVar[Callable[[], Context] | None] = ContextVar("redisq_running", default=None)


def begin_run(context: Callable[[], Context]) -> Token[Any]:
    """From here on, in this task or thread, that is what `current_context` returns. Returns what `end_run` takes."""
    return _RUNNING.set(context)


def end_run(before: Token[Any]) -> None:
    """Let `current_context` return what it did before. Only for who goes on in the same task or thread."""
    _RUNNING.reset(before)


def current_context() -> Context | None:
    """Return the context of the job whose handler runs here, in its coroutine, thread or process; None outside of one."""
    running = _RUNNING.get()
    return running() if running else None


def context_of(options: TaskOptions, delivery: Delivery, queue: str, worker: str, ran: float, report: Report) -> Context:
    """Return the context of a run that began so many seconds ago."""
    meta = delivery.meta
    limit = options.timeout if options.soft_timeout is None else options.soft_timeout
    return Context(
        delivery.id,
        options.name,
        queue,
        attempt=meta.attempt,
        max_retries=options.max_retries,
        worker=worker,
        expires=_EPOCH + timedelta(microseconds=meta.expires) if meta.expires else None,
        seconds=None if limit is None else limit - ran,
        report=report,
    )


def detached(options: TaskOptions) -> Context:
    """Return a context for a function that is called directly, outside of any job."""
    return Context("direct-call", options.name, options.queue or "", max_retries=options.max_retries)
