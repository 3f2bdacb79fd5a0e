"""Calls of one task on their way from the task to its app."""

from __future__ import annotations

from typing import NamedTuple

from redisq.app.gating import Gating
from redisq.app.settings import SendOptions, TaskOptions
from redisq.codec.hints import Shape
from redisq.message import Message

__all__ = ["Calls"]


class Calls(NamedTuple):
    """What an app needs to know to send them.

    Attributes:
        options: The task's.
        send: What the calls are set to.
        messages: One a call.
        shape: What the handler builds out of the arguments; None: its code is not here.
        gating: What the calls are subject to; None: nothing.
        by_name: Whether plain arguments fit is for the worker to say, whose code may be another.
    """

    options: TaskOptions
    send: SendOptions
    messages: list[Message]
    shape: Shape | None = None
    gating: Gating | None = None
    by_name: bool = False
