"""A chat platform that holds bots to its limits: a real HTTP server, which answers 429 and then does not forgive at once.

Times are whole microseconds of a clock that only goes forward.

`POST /send` with `{"chat_id": 7, "text": "hi"}`; a group's chat_id is negative, as on Telegram. Answers are Telegram's:
`{"ok": true, ...}`, or 429 with `parameters.retry_after` and `Retry-After`, in seconds with a fraction.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Of a second.
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Rule:
    """At most `burst + count * window / period` messages in any window.

    Attributes:
        count: Messages a period.
        period: Microseconds.
        burst: Messages that may come at once after a quiet time.
    """

    count: int
    period: int
    burst: int = 1


@dataclass(frozen=True)
class Rules:
    """The limits of a platform.

    Attributes:
        bot: For all that a bot sends.
        chat: For each chat, group or not.
        group: For each group.
    """

    bot: Rule
    chat: Rule
    group: Rule

    @classmethod
    def scaled(cls, factor: int) -> Rules:
        """Telegram's 30/s a bot, 1/s a chat, 20/min a group, all so many times as fast."""
        bot = 30 * factor
        return cls(Rule(bot, MICROSECONDS, max(1, bot // 20)), Rule(factor, MICROSECONDS), Rule(20 * factor, 60 * MICROSECONDS))

    def limits(self) -> list[str]:
        """The same as a task's `limits=`; its parameters are `chat_id`, and `group_id`, which is None in private chats.

        A burst is half of the platform's: the other half is for messages that a busy machine sends late, and then together.
        """
        names = (("bot", self.bot), ("chat:{chat_id}", self.chat), ("group:{group_id}", self.group))
        return [f"{name}:{rule.count}/{rule.period / MICROSECONDS:g}s burst {max(1, rule.burst // 2)}" for name, rule in names]

    def of(self, chat_id: int) -> list[tuple[str, Rule]]:
        """The limits of a message to a chat, each with the name of what it counts."""
        found = [("bot", self.bot), (f"chat:{chat_id}", self.chat)]
        return [*found, (f"group:{chat_id}", self.group)] if chat_id < 0 else found


class Gate:
    """One limit as it stands: virtual scheduling, as in ITU-T I.371. The interval is rounded down, in the bot's favour."""

    def __init__(self, rule: Rule) -> None:
        self.interval = rule.period // rule.count
        self._tolerance = (rule.burst - 1) * self.interval
        self._theoretical = 0

    def opens(self) -> int:
        """When the next message conforms."""
        return self._theoretical - self._tolerance

    def take(self, now: int) -> None:
        """Count a message."""
        self._theoretical = max(self._theoretical, now) + self.interval


@dataclass(frozen=True)
class Sent:
    """A message that was accepted."""

    at: int
    chat_id: int
    text: str


@dataclass
class ChatPlatform:
    """What the platform knows, without a network: `receive` is one request.

    Attributes:
        rules: Its limits.
        slack: Microseconds that a message may come too early: a network delays one message more than the next, and bots
            can only time when they send. Earliness is not saved up: the long-run rate stays the rule's.
        penalty: Microseconds that a flood adds to the wait. In this time nothing passes what was flooded.
        grace: Microseconds after a 429 in which what is still on its way is refused without being held against the bot.
        inject: Says of a chat, asked for each message that would be accepted, for how many microseconds it is to be
            refused though the bot did nothing wrong; 0: not.
        accepted: In the order in which they came.
        floods: What was flooded -> how often: limits that a bot broke. There should be none.
        ignored: What was refused -> how often it was asked again before the time that it had been told. None, too.
        injected: How many refusals were made up.
        late_news: How many came within `grace` after a refusal.
        slack_used: The kind of limit -> the most microseconds that one message came too early within the slack.
    """

    rules: Rules
    slack: int = 20_000
    penalty: int = 500_000
    grace: int = 50_000
    inject: Callable[[int], int] = lambda _chat_id: 0
    accepted: list[Sent] = field(default_factory=list)
    floods: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    injected: int = 0
    late_news: int = 0
    slack_used: Counter[str] = field(default_factory=Counter)
    _gates: dict[str, Gate] = field(default_factory=dict)
    # What is shut for a penalty -> when that was told, and until when.
    _shut: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def violations(self) -> int:
        """What the bot did wrong: limits broken, and refusals ignored."""
        return self.floods.total() + self.ignored.total()

    def receive(self, chat_id: int, text: str, now: int) -> int:
        """Judge one message. Nothing is counted for a refused one.

        Returns:
            0: accepted; else the microseconds that the bot is told to wait.
        """
        limits = self.rules.of(chat_id)
        for name, _ in limits:
            told, until = self._shut.get(name, (0, 0))
            if now < until:
                if now <= told + self.grace:
                    self.late_news += 1
                else:
                    self.ignored[name] += 1
                return until - now
        gates = [(name, self._gates.get(name) or self._gates.setdefault(name, Gate(rule))) for name, rule in limits]
        for name, gate in gates:
            if now < gate.opens() - self.slack:
                self.floods[name] += 1
                return self._shut_for(name, gate.opens() - now + self.penalty, now)
        if wait := self.inject(chat_id):
            self.injected += 1
            return self._shut_for(f"chat:{chat_id}", wait, now)
        for name, gate in gates:
            kind = name.partition(":")[0]
            self.slack_used[kind] = max(self.slack_used[kind], gate.opens() - now)
            gate.take(now)
        self.accepted.append(Sent(now, chat_id, text))
        return 0

    def _shut_for(self, name: str, wait: int, now: int) -> int:
        self._shut[name] = (now, now + wait)
        return wait


@contextmanager
def running(platform: ChatPlatform, latency: float = 0.0) -> Iterator[str]:
    """Serve a platform on a port of this machine, in a thread of its own.

    Args:
        platform: Read it when the server has ended, or where a number that is a moment old does.
        latency: Seconds before each answer; the message counts when it comes.

    Yields:
        Its URL, without a slash at its end.
    """
    loop = asyncio.new_event_loop()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            await _serve(platform, latency, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the bot was killed, or has what it wanted; or this is the end
        finally:
            connections.discard(task)
            writer.close()

    async def end() -> None:
        server.close()
        waiting = list(connections)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await server.wait_closed()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024))
    thread = threading.Thread(target=loop.run_forever, name="chat-platform")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(platform: ChatPlatform, latency: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection, one after the other."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status, wait, answer = _answer(platform, head[0], body)
        if latency:
            await asyncio.sleep(latency)
        text = json.dumps(answer).encode()
        retry_after = f"Retry-After: {wait:.6f}\r\n" if wait else ""
        start = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{retry_after}Content-Length: {len(text)}\r\n\r\n"
        writer.write(start.encode() + text)
        await writer.drain()
        if headers.get("connection", "").lower() == "close":
            return


def _answer(platform: ChatPlatform, request: str, body: bytes) -> tuple[str, float, dict[str, object]]:
    """The status, the seconds to wait, and the body."""
    try:
        message = json.loads(body)
        chat_id, text = int(message["chat_id"]), str(message["text"])
    except (ValueError, KeyError, TypeError):
        return "400 Bad Request", 0, {"ok": False, "error_code": 400, "description": f"Bad Request: {request}"}
    wait = platform.receive(chat_id, text, time.monotonic_ns() // 1000) / MICROSECONDS
    if not wait:
        return "200 OK", 0, {"ok": True, "result": {"message_id": len(platform.accepted)}}
    description = f"Too Many Requests: retry after {wait:g}"
    parameters = {"retry_after": wait}
    return "429 Too Many Requests", wait, {"ok": False, "error_code": 429, "description": description, "parameters": parameters}
