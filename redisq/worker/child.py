"""What runs inside a child process: one delivery at a time, asked for and answered over a pipe.

The child does what the executor does in the worker: decode, call, judge. So the answer is the settlement itself, plain
values in msgpack both ways; no error and no result has to be rebuilt in the parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from random import random
from types import FrameType
from typing import Any

import msgpack

from redisq.app.task import Task
from redisq.broker.commands import Settlement
from redisq.codec.msgpack import decode
from redisq.errors import ConfigError, DecodeError, EncodeError, MessageTooLarge, SoftTimeout
from redisq.message import Delivery, Meta
from redisq.worker.verdict import after_failure, after_success, done, unreadable

__all__ = ["address_of", "child_main", "pack_request", "unpack_answer"]

_PR_SET_PDEATHSIG = 1


def address_of(task: Task[..., Any]) -> tuple[str, str]:
    """Return where a child finds the task: its handler's module and qualified name.

    Raises:
        ConfigError: The handler was made inside a function: no other process can find it.
    """
    module, name = task.handler.__module__, task.handler.__qualname__
    if "<locals>" in name:
        raise ConfigError(f"task {task.name}: a process pool runs functions of a module's top level, not {name}")
    return module, name


def pack_request(task: Task[..., Any], delivery: Delivery, max_bytes: int) -> bytes:
    """Return what a child is asked: to run this delivery."""
    meta = delivery.meta
    packed: bytes = msgpack.packb(
        [*address_of(task), delivery.id, delivery.fence, delivery.body, meta.attempt, meta.crashes, meta.parks, max_bytes]
    )
    return packed


def unpack_answer(raw: bytes) -> tuple[Settlement, str]:
    """Return how the delivery ends, and a line for the log, empty when there is nothing to say."""
    *fields, note = msgpack.unpackb(raw)
    return Settlement(*fields), note


def child_main(pipe: Connection, parent: int) -> None:
    """Serve requests until the pipe closes."""
    _die_with(parent)
    # Ctrl-C reaches the whole group: the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(msgpack.packb(_serve(*msgpack.unpackb(pipe.recv_bytes()))))


def _die_with(parent: int) -> None:
    """Let the kernel end this process with its parent: what it does then is not wanted any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(
    module: str, name: str, id: str, fence: int, body: bytes, attempt: int, crashes: int, parks: int, max_bytes: int
) -> list[Any]:
    delivery = Delivery(id, fence, body, Meta(attempt, crashes, parks))
    try:
        task = _find_task(module, name)
        message = decode(body, max_bytes)
        args, kwargs = task.shape.revive(message.args, message.kwargs or {})
    except (DecodeError, ConfigError) as error:
        return [*unreadable(delivery, error, random), str(error)]
    try:
        returned = _call(task, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - judged, as in the executor
        settlement = after_failure(task.definition, delivery, error, random)
        return [*settlement, settlement.text]
    try:
        return [*after_success(task.definition, delivery, returned, max_bytes), ""]
    except (EncodeError, MessageTooLarge) as error:
        return [*done(delivery), f"done, its result is not kept: {error}"]


def _find_task(module: str, name: str) -> Task[..., Any]:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Task):
        raise ConfigError(f"a process pool looks for task {name} in module {module}, and it is not there under this name")
    return found


def _call(task: Task[..., Any], args: Any, kwargs: Any) -> Any:
    soft = task.definition.soft_timeout
    if task.is_async:
        return asyncio.run(_call_async(task, args, kwargs, soft))
    if soft is None:
        return task.handler(*args, **kwargs)
    signal.signal(signal.SIGALRM, _tell)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return task.handler(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _call_async(task: Task[..., Any], args: Any, kwargs: Any, soft: float | None) -> Any:
    timer = asyncio.timeout(soft)
    try:
        async with timer:
            return await task.handler(*args, **kwargs)
    except TimeoutError:
        if timer.expired():
            raise SoftTimeout(f"soft timeout of {soft:g} s") from None
        raise


def _tell(_number: int, _frame: FrameType | None) -> None:
    raise SoftTimeout("soft timeout")
