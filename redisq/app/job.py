"""The job: one call of a task, as its caller holds it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Job"]


class Job(NamedTuple):
    """One call of a task.

    Attributes:
        id: Its message's id.
        task: The task's name.
        queue: The queue that it was sent to.
    """

    id: str
    task: str
    queue: str
