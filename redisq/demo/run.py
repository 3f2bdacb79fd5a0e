"""Run the demo: start all, send the messages, watch until the last one has found its end, clean up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from redisq.app.app import RedisQ
from redisq.broker.commands import QueueView, browse, inspect
from redisq.demo import bot
from redisq.demo.chat_api import running
from redisq.demo.result import DeadLetter, Result, result_of
from redisq.demo.server import own_server
from redisq.demo.show import Show
from redisq.demo.signals import StopSignals, stop_signals
from redisq.demo.traffic import COUNTDOWNS, TALK, ChatMessage, chat_messages
from redisq.demo.workers import COUNT, DemoFailed, Workers
from redisq.words import counted

__all__ = ["Demo", "run"]

#: Seconds between two looks.
LOOK = 0.1
#: The leases of one worker run out one by one; so many seconds of them are told in one line.
GATHER = 1.0
#: It takes about 15 s. A machine that needs more than this is in trouble.
LIMIT = 90.0


def run(show: Show, *, keep: bool = False) -> Result:
    """Run it.

    Args:
        show: Told what happens.
        keep: Leave the server, with its dead letters, when all went well.

    Raises:
        Stopped: By a signal. All is cleaned up.
        NoServer: There is no server program.
        DemoFailed: A worker does not work.
    """
    started = time.monotonic()
    messages = chat_messages()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        server, url = stack.enter_context(own_server(keep))
        api = stack.enter_context(running(messages))
        workers = Workers(server.folder, url, api.address)
        stack.callback(workers.close)
        app = bot.app.at(url=url)
        stack.callback(app.close)
        stack.enter_context(show)
        demo = Demo(app, messages, workers, show, stop, started)
        demo.send()
        workers.start()
        view = demo.watch()
        result = result_of(messages, view, api, demo.dead, demo.due, killed=workers.killed)
    return replace(result, seconds=round(time.monotonic() - started, 1), url=server.url if keep else None)


class Demo:
    """The bot's side, and the viewer's eyes.

    Args:
        app: The bot's app, on the demo's Redis.
        messages: To be sent.
        workers: The processes that run.
        show: Told what happens.
        stop: Whether to end before the end.
        started: When the demo began, by the monotonic clock.
    """

    def __init__(
        self, app: RedisQ, messages: Sequence[ChatMessage], workers: Workers, show: Show, stop: StopSignals, started: float
    ) -> None:
        self._app = app
        self._keys = app.keys("chat_api")
        self._messages = messages
        self._workers = workers
        self._show = show
        self._stop = stop
        self._started = started
        self._sent: dict[str, ChatMessage] = {}
        self._taken_back = 0
        self._limited = 0
        self._gathering = 0.0
        #: Message -> when it was due, by the monotonic clock.
        self.due: dict[int, float] = {}
        self.dead: list[DeadLetter] = []

    def send(self) -> None:
        """Send the messages: for now, for later, and at last those that overtake."""
        plain = [message for message in self._messages if not message.countdown and not message.priority]
        urgent = [message for message in self._messages if message.priority]
        later = [[message for message in self._messages if message.countdown == seconds] for seconds in COUNTDOWNS]
        for batch in (plain, *later, urgent):
            first = batch[0]
            task = self._app.find_task("answer").options(countdown=first.countdown, priority=first.priority)
            now = time.monotonic()
            jobs = task.delay_many([(message.chat_id, message.number, message.text) for message in batch])
            for job, message in zip(jobs, batch, strict=True):
                self._sent[job.id] = message
                self.due[message.number] = now + message.countdown
        self._say(
            f"{len(self._messages)} messages accepted: {len(plain)} for now, {sum(map(len, later))} for later,"
            f" {len(urgent)} with priority; {COUNT} workers start"
        )

    def watch(self) -> QueueView:
        """Tell what happens until no message is open; return how the queue looks then.

        Raises:
            Stopped: By a signal.
            DemoFailed: A worker does not work, or it takes too long.
        """
        while True:
            self._stop.check()
            for name, successor in self._workers.replace_killed():
                self._say(f"{name} was killed by a poison message; {successor} takes its place", "bad")
            view: QueueView = self._app.connector.execute(inspect(self._keys))
            self._tell_changes(view)
            self._show.progress(self._seconds, len(self._messages), view)
            if not (view.waiting or view.delayed or view.retry or view.processing):
                return view
            if self._seconds > LIMIT:
                raise DemoFailed(f"messages are open after {LIMIT:g} s. {self._workers.last_words()}")
            time.sleep(LOOK)

    def _tell_changes(self, view: QueueView) -> None:
        if (limited := view.stats.get("limited", 0)) > self._limited:
            self._limited = limited
            paused = [state for state in self._app.control.limits("chat_api") if state.paused_for]
            for state in paused:
                held = f", its {TALK - 1} next messages wait in order" if state.name.startswith("chat:") else ""
                self._say(f"429: limit {state.name} pauses for {state.paused_for:.1f} s{held}", "bad")
        if view.dead > len(self.dead):
            for row in self._app.connector.execute(browse(self._keys, "dead", offset=len(self.dead), limit=view.dead)):
                meta = row.meta
                letter = DeadLetter(row.id, self._sent[row.id].chat_id, meta.reason, meta.attempt, meta.crashes, meta.text)
                self.dead.append(letter)
                self._say(f"chat {letter.chat_id} is a dead letter, {letter.reason}: {letter.error}", "bad")
        taken_back = view.stats.get("crashes", 0) - sum(letter.reason == "crashed" for letter in self.dead)
        if taken_back == self._taken_back:
            self._gathering = self._seconds
        elif self._seconds > self._gathering + GATHER:
            count, self._taken_back = taken_back - self._taken_back, taken_back
            self._say(f"{counted(count, 'message')} of a killed worker, taken back when the leases ran out", "good")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _say(self, text: str, kind: str = "") -> None:
        self._show.event(self._seconds, text, kind)
