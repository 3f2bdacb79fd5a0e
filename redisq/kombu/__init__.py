"""The kombu transport: `redisq://` for kombu and Celery, on the same queues and scripts as redisq's own workers.

    import redisq.kombu
    kombu.Connection("redisq://localhost:6379/0")

Celery needs no import: `broker_url = "redisq://localhost:6379/0"`. Where the URL has to stay `redis://`, name the transport:
`broker_transport = "redisq.kombu:Transport"`.
"""

from __future__ import annotations

from typing import Any

import redisq_kombu_alias  # noqa: F401 - its import makes the scheme known

__all__ = ["Transport"]


def __getattr__(name: str) -> Any:
    # Late: importing this package has to make the scheme known, while kombu may still be importing itself.
    if name == "Transport":
        from redisq.kombu.transport import NamedTransport

        return NamedTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
