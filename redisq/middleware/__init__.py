"""Middleware that comes with redisq, and what your own is made from. One file each.

from redisq.middleware import LogRuns, Middleware

app = RedisQ("bot_logic", middleware=[LogRuns()])
"""

from redisq.app.middleware import End, Middleware, OutgoingCall
from redisq.app.progress import Progress
from redisq.errors import CallRefused
from redisq.message import Delivery
from redisq.middleware.log_job import LogJob
from redisq.middleware.log_runs import LogRuns

__all__ = ["CallRefused", "Delivery", "End", "LogJob", "LogRuns", "Middleware", "OutgoingCall", "Progress"]
