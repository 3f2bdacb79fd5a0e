"""What the program asked kombu for, in the program's terms, for the texts of errors."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

__all__ = ["sending", "to_send"]


def to_send(headers: Any, exchange: str, routing_key: str) -> str:
    """Say what is done with a message, e.g. `send task app.add to queue mail`."""
    task = headers.get("task") if isinstance(headers, dict) else None
    what = f"task {task}" if isinstance(task, str) and task else "a message"
    where = f"queue {routing_key}" if exchange in ("", routing_key) else f"exchange {exchange}, routing key {routing_key!r}"
    return f"send {what} to {where}"


def sending() -> str:
    """Say what this thread is about to send, as `to_send` does; nothing: it sends no message.

    Before kombu sends a message it connects, opens channels and declares, and it tells none of them what for. So the callers are
    looked up. Call it when something failed.
    """
    frame: FrameType | None = sys._getframe(1)  # public in all but its name; `inspect` gives the same
    found = ""
    while frame is not None:
        # By its names: tools that watch a program put a function of their own in its place.
        match frame.f_globals.get("__name__"), frame.f_code.co_qualname:
            case "kombu.messaging", "Producer.publish":
                asked = frame.f_locals
                found = found or to_send(
                    asked.get("headers"), str(asked.get("exchange_name") or ""), str(asked.get("routing_key") or "")
                )
            case "kombu.pidbox", "Mailbox._broadcast":
                return f"send remote control command {frame.f_locals.get('command')}"
        frame = frame.f_back
    return found
