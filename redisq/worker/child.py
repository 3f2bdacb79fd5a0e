"""What runs inside a child process: one delivery at a time, asked for and answered over a pipe.

The child does what the executor does in the worker: decode, call, judge. So the answer is the settlement itself, plain
values in msgpack both ways; no error and no result has to be rebuilt in the parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from enum import StrEnum
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NamedTuple

import msgpack

from redisq.app.calling import Unfinished, acall, call
from redisq.app.context import Context, context_of
from redisq.app.hooks import Hooks
from redisq.app.progress import Progress
from redisq.app.task import Task
from redisq.backoff import jitter_of
from redisq.broker.commands import Settlement
from redisq.clocks import monotonic, steady_loop
from redisq.codec.msgpack import decode
from redisq.errors import ConfigError, DecodeError, EncodeError, MessageTooLarge, SoftTimeout
from redisq.gates.blame import Blame
from redisq.logs import LogSetup, set_up
from redisq.message import Delivery, Meta
from redisq.redact import error_text
from redisq.worker.frames import origin
from redisq.worker.places import Home, Place, find_app, find_task
from redisq.worker.refusals import after_refusal
from redisq.worker.signals import ALSO_STOP
from redisq.worker.speaker import Speaker
from redisq.worker.verdict import NOT_IMPORTABLE, after_failure, after_success, done, not_begun, unreadable

__all__ = ["Answer", "Said", "Stage", "child_main", "pack_request", "unpack_answer"]

_PR_SET_PDEATHSIG = 1

_NO_HOOKS = Hooks("none")


class Stage(StrEnum):
    """How far a child is.

    Attributes:
        READY: It has started, and waits for its first request.
        BEGUN: It has imported what the request asks for, and does that now.
    """

    READY = "ready"
    BEGUN = "begun"


class Answer(NamedTuple):
    """How the delivery ends, and a line for the log, empty when there is nothing to say."""

    settlement: Settlement
    line: str


class Said(NamedTuple):
    """What the handler of a job said of its progress."""

    id: str
    progress: Progress


def pack_request(
    place: Place, delivery: Delivery, queue: str, worker: str, hooks_at: Home | None, max_bytes: int, jitter: float | None
) -> bytes:
    """Return what a child is asked: to run this delivery of the task at this place, through the hooks of the app there."""
    # The delivery with its record in one list, as the child builds it again.
    packed: bytes = msgpack.packb([place, delivery, queue, worker, hooks_at, max_bytes, jitter])
    return packed


def unpack_answer(raw: bytes) -> Answer | Said | Stage:
    """Return what a child answered, or said in between."""
    first, *others = msgpack.unpackb(raw)
    if not others:
        return Stage(first)
    if first == "progress":
        job_id, *progress = others
        return Said(job_id, Progress(*progress))
    *fields, line = others
    return Answer(Settlement(first, *fields), line)


def child_main(pipe: Connection, parent: int, logs: LogSetup | None) -> None:
    """Serve requests until the pipe closes. Logs are shown as in the parent."""
    _die_with(parent)
    if logs:
        set_up(logs)
    # Ctrl-C reaches the whole group: the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not SIG_IGN, which the programs that a handler starts would inherit.
    for number in (signal.SIGTERM, *ALSO_STOP):
        signal.signal(number, _leave_it_to_the_parent)
    # What a handler starts must not hold the pipe: its end tells the parent of this process's death.
    os.set_inheritable(pipe.fileno(), False)
    os.register_at_fork(after_in_child=pipe.close)
    speaker, blame = Speaker(pipe), Blame()
    with suppress(EOFError, OSError):
        speaker.answer(msgpack.packb([Stage.READY]))
        while True:
            request = msgpack.unpackb(pipe.recv_bytes())
            # Each delivery in a context of its own: what the app's code sets is not there for the next.
            speaker.answer(msgpack.packb(copy_context().run(_serve, speaker, blame, *request)))


def _leave_it_to_the_parent(*_: Any) -> None:
    """The worker decides whether this process goes on; it ends it by SIGKILL."""


def _die_with(parent: int) -> None:
    """Let the kernel end this process with its parent: what it does then is not wanted any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(
    speaker: Speaker,
    blame: Blame,
    place: list[Any],
    sent: list[Any],
    queue: str,
    worker: str,
    hooks_at: list[str] | None,
    max_bytes: int,
    jitter: float | None,
) -> list[Any]:
    random = jitter_of(jitter)
    job_id, fence, body, meta = sent
    delivery = Delivery(job_id, fence, body, Meta(*meta))
    module, name, task_name, home = place
    try:
        hooks = find_app(Home(*hooks_at)).hooks if hooks_at else _NO_HOOKS
        task = find_task(Place(module, name, task_name, home and Home(*home)))
    except ConfigError as error:
        return [*not_begun(delivery, NOT_IMPORTABLE, error_text(error), random), str(error)]
    speaker.answer(msgpack.packb([Stage.BEGUN]))
    try:
        message = decode(body, max_bytes)
        args, kwargs = task.arguments(message)
    except DecodeError as error:
        return [*unreadable(delivery, error, random), str(error)]
    except Exception as error:  # noqa: BLE001 - as in the executor, which has tried it before: a failed attempt
        return _failed(task, delivery, error, random)
    context = context_of(task.definition, delivery, queue, worker, 0.0, partial(speaker.say, job_id))
    try:
        returned = _call(hooks, task, lambda: context, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - judged, as in the executor
        refused = after_refusal(task, delivery, error, blame, max_bytes, random)
        return [*refused, refused.text] if refused else _failed(task, delivery, error, random)
    try:
        return [*after_success(task, delivery, returned, max_bytes), ""]
    except (EncodeError, MessageTooLarge) as error:
        return [*done(delivery), f"done, its result is not kept: {error}"]


def _failed(task: Task[..., Any], delivery: Delivery, error: BaseException, random: Callable[[], float]) -> list[Any]:
    settlement = after_failure(task.definition, delivery, error, random)
    return [*settlement, f"{settlement.text!s}{origin(error)}"]


def _call(hooks: Hooks, task: Task[..., Any], context: Callable[[], Context], args: Any, kwargs: Any) -> Any:
    soft, begun = task.definition.soft_timeout, monotonic()
    if task.is_async:
        return _run(_await(soft, soft, acall(hooks, task, context, args, kwargs)))
    returned = _call_plain(soft, partial(call, hooks, task, context, args, kwargs))
    if isinstance(returned, Unfinished):
        left = None if soft is None else max(0.0, begun + soft - monotonic())
        return _run(_await(soft, left, returned.finish()))
    return returned


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=steady_loop) as runner:
        return runner.run(work)


def _call_plain(soft: float | None, handler: Callable[[], Any]) -> Any:
    if soft is None:
        return handler()
    signal.signal(signal.SIGALRM, _tell)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return handler()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _await(soft: float | None, left: float | None, running: Coroutine[Any, Any, Any]) -> Any:
    timer = asyncio.timeout(left)
    try:
        async with timer:
            return await running
    except TimeoutError:
        if timer.expired():
            raise SoftTimeout(f"soft timeout of {soft:g} s") from None
        raise


def _tell(_number: int, _frame: FrameType | None) -> None:
    raise SoftTimeout("soft timeout")
