"""Put the job's id into every log record that is written while its handler runs."""

from __future__ import annotations

import logging

from redisq.app.context import current_context

__all__ = ["LogJob"]


class LogJob(logging.Filter):
    """A filter for the handlers of `logging`: each record gets `job`, `task`, `queue` and `attempt`.

    Outside of a job they are `-`. No middleware, since it needs no hook: it asks `redisq.current_context()`. Whatever
    module writes the record, and whether the handler is a coroutine or runs in a thread or a process of its own:

        output = logging.StreamHandler()
        output.addFilter(LogJob())
        output.setFormatter(logging.Formatter("%(levelname)s %(task)s[%(job)s] %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; every record passes."""
        context = current_context()
        record.job = context.id if context else "-"
        record.task = context.task if context else "-"
        record.queue = context.queue if context else "-"
        record.attempt = context.attempt if context else "-"
        return True
