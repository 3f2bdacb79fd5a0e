from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["REDISQ_URL"]))


@dramatiq.actor(queue_name="bench")
def noop() -> None: ...
