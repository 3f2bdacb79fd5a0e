"""A bot whose tasks have lanes and limits, for real worker processes. It writes what it does to a ledger outside the broker."""

from __future__ import annotations

import asyncio
import os
import random
import time
from functools import cache

import aiohttp

from redisq import Context, RateLimited, RedisQ
from tests.integration.chat_platform import Rules

app = RedisQ("gated", lease=float(os.environ.get("BOT_LEASE", "30")))

#: The platform's rules are those of Telegram, so many times as fast.
FACTOR = int(os.environ.get("BOT_FACTOR", "2"))

_ledger = os.open(os.environ["BOT_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BOT_LEDGER" in os.environ else None


def note(kind: str, what: object) -> None:
    """One line, one write: whole also when the process is killed right after."""
    if _ledger is not None:
        os.write(_ledger, f"{kind} {what} {os.getpid()} {time.time():.6f}\n".encode())


@app.task(queue="lanes", key="{chat_id}", max_retries=5, retry_backoff=0.05)
async def in_order(chat_id: int, number: int, failures: int = 0) -> None:
    """Takes up to 5 ms; fails so often before."""
    note("S", f"{chat_id}:{number}")
    try:
        await asyncio.sleep(random.uniform(0, 0.005))
        if failures and attempts_of(f"{chat_id}:{number}") <= failures:
            raise RuntimeError("not yet")
    finally:
        note("E", f"{chat_id}:{number}")


def attempts_of(what: str) -> int:
    """How often it was started, as the ledger says."""
    with open(os.environ["BOT_LEDGER"]) as lines:
        return sum(line.startswith(f"S {what} ") for line in lines)


@cache
def session() -> aiohttp.ClientSession:
    """One for the process; called in its loop."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(os.environ["CHAT_PLATFORM"], connector=connector, raise_for_status=True)


@app.task(queue="platform", key="{chat_id}", limits=Rules.scaled(FACTOR).limits())
async def send(chat_id: int, group_id: int | None, text: str) -> None:
    """Send one message to the platform; what it says, the client raises."""
    note("S", f"{chat_id}:{text}")
    async with session().post("/send", json={"chat_id": chat_id, "text": text}):
        pass
    note("E", f"{chat_id}:{text}")


@app.task(queue="slots", limits=["llm: 3 at once"])
async def ask(number: int) -> None:
    note("S", number)
    await asyncio.sleep(0.02)
    note("E", number)


@app.task(queue="door", dedupe_key="{update}")
async def once(update: int, text: str) -> None:
    note("S", f"{update}:{text}")
    await asyncio.sleep(0.05)
    note("E", f"{update}:{text}")


def refused_at_first(context: Context) -> None:
    note("S", context.id)
    if attempts_of(context.id) == 1:
        raise RateLimited(0.3)
    note("E", f"{context.id}:{context.attempt}")


@app.task(queue="refused", bind=True, limits=["bot:1000/s burst 100"])
async def in_the_loop(context: Context) -> None:
    refused_at_first(context)


@app.task(queue="refused", bind=True, limits=["bot:1000/s burst 100"])
def in_a_thread(context: Context) -> None:
    refused_at_first(context)


@app.task(queue="refused", bind=True, limits=["bot:1000/s burst 100"], pool="process")
def in_a_process(context: Context) -> None:
    refused_at_first(context)


@app.task(queue="refused", bind=True, limits=["bot:1000/s burst 100"], pool="process")
async def in_a_process_async(context: Context) -> None:
    refused_at_first(context)


@app.task(queue="answers", group="platform", limits=["shared:20/s"])
async def answer(number: int) -> None:
    note("S", f"answer:{number}")


@app.task(queue="broadcasts", group="platform", limits=["shared:20/s"])
async def broadcast(number: int) -> None:
    note("S", f"broadcast:{number}")


@app.task(queue="answers", group="platform", limits=["gpu: 1 at once"])
async def paint(seconds: float) -> None:
    note("S", "paint")
    await asyncio.sleep(seconds)
    note("E", "paint")


@app.task(queue="broadcasts", group="platform", limits=["gpu: 1 at once"])
async def draw() -> None:
    note("S", "draw")


def hold(path: str) -> None:
    """Takes as long as there is such a file."""
    while os.path.exists(path):
        time.sleep(0.01)


@app.task(queue="holds", timeout=None)
def hold_a_thread(path: str) -> None:
    note("S", "hold")
    hold(path)


@app.task(queue="holds", pool="process", timeout=None)
def hold_a_process(path: str) -> None:
    note("S", "hold")
    hold(path)


@app.task(queue="paced", limits=["api:10/s"])
def paced(number: int) -> None:
    note("S", number)


@app.task(queue="paced", limits=["api:10/s"], pool="process")
def paced_apart(number: int) -> None:
    note("S", number)


@app.task(queue="paced")
async def mark(number: int) -> None:
    note("S", f"mark:{number}")
