"""Which queues have work that no living worker serves: judged by their lengths, their leases, and the workers' signs of life."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redisq.broker.commands import QueueView
from redisq.broker.keys import QueueKeys
from redisq.broker.overview import overview
from redisq.broker.queues import Steps
from redisq.broker.registry import BEAT, Registry, present
from redisq.errors import BrokerError

__all__ = ["Service", "is_served", "read_service", "served_queues"]

#: Work may wait for so many seconds before anybody is missed: a worker shows a sign of life three times within them.
_PATIENCE = 3 * BEAT


class Service(NamedTuple):
    """How a queue is served.

    Attributes:
        view: The queue at one moment.
        served: Whether a living worker serves it.
    """

    view: QueueView
    served: bool

    @property
    def is_left_alone(self) -> bool:
        """Whether there is work, for some time, and no living worker."""
        return not self.served and not self.view.paused and (self.view.oldest_age or 0.0) > _PATIENCE

    @property
    def is_overlooked(self) -> bool:
        """Whether messages are due, or leases ended, for some time, though a worker is there and runs nothing of the queue."""
        age = max(self.view.overdue_age or 0.0, self.view.expired_age or 0.0)
        return self.served and not _is_running(self.view) and age > _PATIENCE


def served_queues(workers: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the queues that the workers say they serve."""
    return {str(queue) for about in workers.values() for queue in _listed(about.get("queues"))}


def is_served(queue: str, view: QueueView, served: Collection[str]) -> bool:
    """Whether a living worker serves a queue: one that says so, or one of Celery's, whose leases have not ended."""
    return queue in served or _is_running(view)


def read_service(registry: Registry, queues: Sequence[QueueKeys]) -> Steps[dict[str, Service]]:
    """Read how each queue is served; one that cannot be read is left out. Changes nothing."""
    rows = yield from overview(queues)
    served = served_queues((yield from present(registry, forget=False)))
    return {
        keys.queue: Service(view, is_served(keys.queue, view, served)) for keys, view in rows if not isinstance(view, BrokerError)
    }


def _is_running(view: QueueView) -> bool:
    return view.processing > view.expired


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
