from __future__ import annotations

import os

from redis import Redis
from rq import Queue

queue = Queue("bench", connection=Redis.from_url(os.environ["REDISQ_URL"]))


def noop() -> None: ...
