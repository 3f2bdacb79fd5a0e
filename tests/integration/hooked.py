"""A bot with middleware and bound tasks, for real worker processes; what happens is written to a ledger outside the broker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from redisq import Context, Middleware, RedisQ, current_context, task
from redisq.middleware import Delivery, End, OutgoingCall

_ledger = os.open(os.environ["BOT_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BOT_LEDGER" in os.environ else None

WHO: ContextVar[str] = ContextVar("who", default="nobody")


def note(*words: object) -> None:
    """One line, one write: whole also when the process is killed right after."""
    if _ledger is not None:
        os.write(_ledger, f"{' '.join(map(str, words))} {os.getpid()}\n".encode())


class Ledger(Middleware):
    """Writes down each call of each hook."""

    def enqueue(self, call: OutgoingCall) -> OutgoingCall:
        note("enqueue", call.task)
        return call

    def claim(self, queue: str, delivery: Delivery) -> None:
        note("claim", delivery.id)

    def run(self, context: Context) -> Generator[None, Any, Any]:
        WHO.set(f"hook of {context.task}")
        note("before", context.id)
        yield
        note("after", context.id)

    def settle(self, end: End) -> None:
        note("settle", end.id, end.op)

    def retry(self, end: End) -> None:
        note("retry", end.id)

    def dead(self, end: End) -> None:
        note("dead", end.id, end.reason)

    def lost(self, end: End) -> None:
        note("lost", end.id)


app = RedisQ("hooked", lease=float(os.environ.get("BOT_LEASE", "30")), middleware=[Ledger()])


def told(context: Context) -> list[Any]:
    """What the handler knows; it comes back as the result."""
    context.progress(1, 2, "half")
    context.progress(2, 2, WHO.get())
    here = current_context()
    return [context.id, context.task, context.queue, context.attempt, context.worker, here is not None and here.id, os.getpid()]


@app.task(bind=True, result_ttl=60)
async def in_the_loop(context: Context) -> list[Any]:
    return told(context)


@app.task(bind=True, result_ttl=60)
def in_a_thread(context: Context) -> list[Any]:
    return told(context)


@app.task(bind=True, result_ttl=60, pool="process")
def in_a_process(context: Context) -> list[Any]:
    return told(context)


@app.task(bind=True, result_ttl=60, pool="process")
async def in_a_process_async(context: Context) -> list[Any]:
    return told(context)


if _ledger is not None:  # not in the tests' own process, where it would be a task of each app

    @task(bind=True, result_ttl=60, pool="process")
    def shared_in_a_process(context: Context) -> list[Any]:
        return told(context)


@app.task(bind=True, result_ttl=60)
async def dies_twice(context: Context) -> list[Any]:
    """Kills its worker; the third time it runs in quarantine, and lives."""
    with open(os.environ["BOT_LEDGER"]) as lines:  # noqa: ASYNC230
        runs = lines.read().count(f"before {context.id}")
    if runs < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return told(context)


@app.task(bind=True, pool="process")
def goes_on_in_a_process(context: Context) -> None:
    context.progress(1, 3, "first")
    note("going", context.id)
    time.sleep(60)


@app.task(bind=True)
async def goes_on(context: Context) -> None:
    context.progress(1, 3, "first")
    note("going", context.id)
    await asyncio.sleep(60)
