"""A task queue for chat bots on Redis sorted sets.

    from redisq import RedisQ

    app = RedisQ("bot_logic")

    @app.task(queue="chat_api")
    async def answer(chat_id: int, text: str) -> None: ...

    answer.delay(42, "hi")        # or: await answer.adelay(42, "hi")

and `redisq worker module:app` in another process.
"""

from redisq.app.app import RedisQ
from redisq.app.context import Context, current_context
from redisq.app.job import Job
from redisq.app.middleware import Middleware
from redisq.app.shared import task
from redisq.app.task import Task
from redisq.errors import RateLimited, Reject, Retry
from redisq.worker.worker import Worker

__all__ = [
    "Context",
    "Job",
    "Middleware",
    "RateLimited",
    "RedisQ",
    "Reject",
    "Retry",
    "Task",
    "Worker",
    "__version__",
    "current_context",
    "task",
]

__version__ = "0.1.0"
