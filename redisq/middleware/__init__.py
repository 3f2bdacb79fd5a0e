"""Middleware that comes with redisq, one file each, and what your own is made from: see `redisq.app.middleware`."""

from redisq.app.middleware import End, Middleware, OutgoingCall
from redisq.app.progress import Progress
from redisq.errors import CallRefused
from redisq.message import Delivery
from redisq.middleware.log_job import LogJob
from redisq.middleware.log_runs import LogRuns

__all__ = ["CallRefused", "Delivery", "End", "LogJob", "LogRuns", "Middleware", "OutgoingCall", "Progress"]
