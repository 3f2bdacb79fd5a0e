"""The bot that the worker processes of the tests run. It writes each start and end to a ledger outside the broker."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import random
import signal
import time
import urllib.request
from datetime import timedelta

from redisq import RedisQ
from redisq.errors import SoftTimeout

if multiprocessing.parent_process() and (why := os.environ.get("BOT_FAILS_APART")):
    raise RuntimeError(why)

app = RedisQ("bot_logic", lease=float(os.environ.get("BOT_LEASE", "30")))

_ledger = os.open(os.environ["BOT_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BOT_LEDGER" in os.environ else None


def note(kind: str, what: object) -> None:
    """One line, one write: whole also when the process is killed right after."""
    if _ledger is not None:
        os.write(_ledger, f"{kind} {what} {os.getpid()} {time.time():.6f}\n".encode())


def ask_chat_api(text: str) -> str:
    with urllib.request.urlopen(os.environ["CHAT_API"], data=text.encode(), timeout=5) as reply:
        body: bytes = reply.read()
    return body.decode()


@app.task(queue="chat_api", max_retries=2, retry_backoff=timedelta(milliseconds=100).total_seconds())
async def answer(chat_id: int, text: str) -> str:
    """Ask the chat API over HTTP. It refuses what begins with "bad"."""
    note("S", f"{chat_id}:{text}")
    reply = await asyncio.to_thread(ask_chat_api, text)
    note("E", f"{chat_id}:{reply}")
    return reply


@app.task(queue="chat_api")
def answer_sync(chat_id: int, text: str) -> str:
    """The same, as a plain function."""
    reply = ask_chat_api(text)
    note("E", f"{chat_id}:{reply}")
    return reply


@app.task(queue="work")
async def short(number: int) -> None:
    """Takes 1 to 5 ms."""
    note("S", number)
    await asyncio.sleep(random.uniform(0.001, 0.005))
    note("E", number)


@app.task(queue="slow")
async def sleep(number: int, seconds: float) -> None:
    note("S", number)
    await asyncio.sleep(seconds)
    note("E", number)


@app.task(queue="slow")
def sleep_sync(number: int, seconds: float) -> None:
    note("S", number)
    time.sleep(seconds)
    note("E", number)


@app.task(queue="slow")
async def block_the_loop(number: int, seconds: float) -> None:
    note("S", number)
    time.sleep(seconds)  # noqa: ASYNC251 - what a handler should not do, and some do
    note("E", number)


def _hold(number: int, path: str) -> None:
    note("S", number)
    while os.path.exists(path):
        time.sleep(0.01)
    note("E", number)


@app.task(queue="slow", timeout=None)
def hold(number: int, path: str) -> None:
    """Takes as long as there is such a file."""
    _hold(number, path)


@app.task(queue="slow", timeout=None, ack="early")
def hold_at_most_once(number: int, path: str) -> None:
    _hold(number, path)


@app.task(queue="apart", pool="process", timeout=None)
def hold_in_a_process(number: int, path: str) -> None:
    _hold(number, path)


@app.task(queue="slow")
def dies(number: int) -> None:
    note("S", number)
    os.kill(os.getpid(), signal.SIGKILL)


def _until_told(number: int) -> None:
    note("S", number)
    try:
        while True:
            time.sleep(0.01)
    finally:
        note("X", number)


@app.task(queue="slow", timeout=0.5, max_retries=0)
async def too_long(number: int) -> None:
    note("S", number)
    try:
        await asyncio.sleep(60)
        note("E", number)
    finally:
        note("X", number)


@app.task(queue="slow", timeout=None)
def until_told(number: int) -> None:
    _until_told(number)


@app.task(queue="slow", timeout=0.5, max_retries=0)
def too_long_sync(number: int) -> None:
    _until_told(number)


@app.task(queue="slow", soft_timeout=0.3)
async def soft(number: int) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note("E", number)


@app.task(queue="slow", soft_timeout=0.3)
def soft_sync(number: int) -> None:
    try:
        _until_told(number)
    except SoftTimeout:
        note("E", number)


@app.task(queue="slow", timeout=0.5, max_retries=0)
async def stubborn(number: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    note("E", number)


@app.task(queue="slow", timeout=0.5, max_retries=0)
def stubborn_sync(number: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except SoftTimeout:
            continue
    note("E", number)


@app.task(queue="slow", timeout=1.0)
async def block_for_ever(number: int) -> None:
    note("S", number)
    time.sleep(600)  # noqa: ASYNC251


@app.task(queue="slow", timeout=None)
async def endless(number: int) -> None:
    note("S", number)
    await asyncio.sleep(600)


@app.task(queue="apart", pool="process", result_ttl=60)
def in_a_process(number: int) -> int:
    note("S", number)
    return os.getpid()


@app.task(queue="apart", pool="process", result_ttl=60)
async def in_a_process_async(number: int) -> int:
    note("S", number)
    return os.getpid()


@app.task(queue="apart", pool="process", result_ttl=60, limits=["scarce:1/m"])
def one_a_minute(number: int) -> int:
    note("S", number)
    return os.getpid()


@app.task(queue="apart", pool="process", max_retries=0)
def fails_in_a_process(number: int) -> None:
    raise ValueError(f"no {number}")


@app.task(queue="apart", pool="process")
def dies_in_a_process(number: int) -> None:
    note("S", number)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(queue="apart", pool="process", timeout=1.0, soft_timeout=0.3, max_retries=0)
def too_long_in_a_process(number: int) -> None:
    while True:
        try:
            time.sleep(60)
        except SoftTimeout:
            note("X", number)


@app.task(queue="slow")
async def long_at_first(number: int) -> None:
    ledger = os.environ["BOT_LEDGER"]
    with open(ledger) as lines:  # noqa: ASYNC230
        seconds = 0.1 if "S " in lines.read() else 600.0
    note("S", number)
    await asyncio.sleep(seconds)
    note("E", number)


@app.task(queue="slow")
def sleep_in_steps(number: int, seconds: float) -> None:
    note("S", number)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    note("E", number)


@app.task(queue="apart", pool="process", timeout=None)
def sleep_in_a_process(number: int) -> None:
    note("S", number)
    time.sleep(60)


@app.task(queue="apart", pool="process", timeout=None)
def naps_in_a_process(number: int, seconds: float) -> None:
    note("S", number)
    time.sleep(seconds)
    note("E", number)


def _hidden(number: int) -> int:
    note("S", number)
    return os.getpid()


# The module has the task under another name than that of its function.
hidden = app.task(name="hidden", queue="slow", result_ttl=60)(_hidden)


@app.task(queue="apart", pool="process", timeout=None)
def dies_and_leaves_a_fork(number: int, kind: str) -> None:
    fork = os.fork if kind == "python" else ctypes.CDLL(None).fork
    if fork() == 0:
        time.sleep(30)
        os._exit(0)
    note("S", number)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(queue="slow", max_retries=0)
async def interrupts(number: int) -> None:
    note("S", number)
    raise KeyboardInterrupt


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd:
    @property
    def __dataclass_fields__(self) -> None:
        raise AttributeError("odd")


@app.task(queue="apart", pool="process", max_retries=0)
def raises_the_unspeakable_in_a_process() -> None:
    raise Unspeakable


@app.task(queue="apart", pool="process", result_ttl=60)
def returns_what_cannot_travel_in_a_process() -> object:
    return Odd()
