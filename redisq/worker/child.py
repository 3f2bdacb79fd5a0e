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
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from multiprocessing.connection import Connection
from random import random
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import msgpack

from redisq.app.app import RedisQ
from redisq.app.calling import acall, call
from redisq.app.context import Context, context_of
from redisq.app.hooks import Hooks
from redisq.app.progress import Progress
from redisq.app.task import Task
from redisq.broker.commands import Settlement
from redisq.codec.msgpack import decode
from redisq.errors import ConfigError, DecodeError, EncodeError, MessageTooLarge, SoftTimeout
from redisq.gates.blame import Blame
from redisq.message import Delivery, Meta
from redisq.worker.refusals import after_refusal
from redisq.worker.speaker import Speaker
from redisq.worker.verdict import after_failure, after_success, done, unreadable

__all__ = ["Answer", "Said", "address_of", "address_of_app", "child_main", "pack_request", "unpack_answer"]

_PR_SET_PDEATHSIG = 1


T = TypeVar("T")

_NO_HOOKS = Hooks("none")


class Answer(NamedTuple):
    """How the delivery ends, and a line for the log, empty when there is nothing to say."""

    settlement: Settlement
    line: str


class Said(NamedTuple):
    """What the handler of a job said of its progress."""

    id: str
    progress: Progress


def address_of(task: Task[..., Any]) -> tuple[str, str]:
    """Return where a child finds the task: its handler's module and qualified name.

    Raises:
        ConfigError: The handler was made inside a function: no other process can find it.
    """
    module, name = task.handler.__module__, task.handler.__qualname__
    if "<locals>" in name:
        raise ConfigError(f"task {task.name}: a process pool runs functions of a module's top level, not {name}")
    return module, name


def address_of_app(app: RedisQ) -> tuple[str, str] | None:
    """Return the module and the name under which a child finds the app; None: it is no global of a module."""
    for module, found in list(sys.modules.items()):
        for name, value in list(getattr(found, "__dict__", {}).items()):
            if value is app:
                return module, name
    return None


def pack_request(
    task: Task[..., Any], delivery: Delivery, queue: str, worker: str, home: tuple[str, str] | None, max_bytes: int
) -> bytes:
    """Return what a child is asked: to run this delivery, through the hooks of the app that is at home there."""
    # The delivery with its record in one list, as the child builds it again.
    packed: bytes = msgpack.packb([*address_of(task), delivery, queue, worker, home, max_bytes])
    return packed


def unpack_answer(raw: bytes) -> Answer | Said:
    """Return what a child answered, or said in between."""
    first, *others = msgpack.unpackb(raw)
    if first == "progress":
        job_id, *progress = others
        return Said(job_id, Progress(*progress))
    *fields, line = others
    return Answer(Settlement(first, *fields), line)


def child_main(pipe: Connection, parent: int) -> None:
    """Serve requests until the pipe closes."""
    _die_with(parent)
    # Ctrl-C reaches the whole group: the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    speaker, blame = Speaker(pipe), Blame()
    with suppress(EOFError, OSError):
        while True:
            speaker.answer(msgpack.packb(_serve(speaker, blame, *msgpack.unpackb(pipe.recv_bytes()))))


def _die_with(parent: int) -> None:
    """Let the kernel end this process with its parent: what it does then is not wanted any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(
    speaker: Speaker,
    blame: Blame,
    module: str,
    name: str,
    sent: list[Any],
    queue: str,
    worker: str,
    home: list[str] | None,
    max_bytes: int,
) -> list[Any]:
    job_id, fence, body, meta = sent
    delivery = Delivery(job_id, fence, body, Meta(*meta))
    try:
        hooks = _find(RedisQ, *home).hooks if home else _NO_HOOKS
        task = _find(Task, module, name)
        message = decode(body, max_bytes)
        args, kwargs = task.shape.revive(message.args, message.kwargs or {})
    except (DecodeError, ConfigError) as error:
        return [*unreadable(delivery, error, random), str(error)]
    context = context_of(task.definition, delivery, queue, worker, 0.0, partial(speaker.say, job_id))
    try:
        returned = copy_context().run(_call, hooks, task, lambda: context, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - judged, as in the executor
        settlement = after_refusal(task, delivery, error, blame, max_bytes, random)
        settlement = settlement or after_failure(task.definition, delivery, error, random)
        return [*settlement, settlement.text]
    try:
        return [*after_success(task.definition, delivery, returned, max_bytes), ""]
    except (EncodeError, MessageTooLarge) as error:
        return [*done(delivery), f"done, its result is not kept: {error}"]


def _find(kind: type[T], module: str, name: str) -> T:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, kind):
        what = kind.__name__.lower()
        raise ConfigError(f"a process pool looks for {what} {name} in module {module}, and it is not there under this name")
    return found


def _call(hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Any, kwargs: Any) -> Any:
    soft = task.definition.soft_timeout
    if task.is_async:
        return asyncio.run(_call_async(soft, acall(hooks, task, context, args, kwargs)))
    if soft is None:
        return call(hooks, task, context, args, kwargs)
    signal.signal(signal.SIGALRM, _tell)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return call(hooks, task, context, args, kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _call_async(soft: float | None, running: Coroutine[Any, Any, Any]) -> Any:
    timer = asyncio.timeout(soft)
    try:
        async with timer:
            return await running
    except TimeoutError:
        if timer.expired():
            raise SoftTimeout(f"soft timeout of {soft:g} s") from None
        raise


def _tell(_number: int, _frame: FrameType | None) -> None:
    raise SoftTimeout("soft timeout")
