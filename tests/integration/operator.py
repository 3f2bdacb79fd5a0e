"""The command line as an operator has it, in this process, and queues for it to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner, Result

from redisq import RedisQ
from redisq.broker import commands
from redisq.broker.commands import Settlement
from redisq.cli.main import main

__all__ = ["TELEGRAM", "Operator", "Stage"]

#: A secret of the shape that Telegram's have. It must never be seen.
TELEGRAM = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"


class Operator:
    """Runs commands against one Redis."""

    def __init__(self, url: str) -> None:
        self.environment = {"REDISQ_URL": url, "REDIS_TIMEOUT": "5"}

    def run(self, *arguments: str, exit_code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, env=self.environment, input=typed)
        assert result.exit_code == exit_code, (result.output, result.exception)
        assert "Traceback" not in result.output
        assert "\x1b" not in result.output
        assert TELEGRAM not in result.output
        return result

    def text(self, *arguments: str, **options: Any) -> str:
        return self.run(*arguments, **options).output

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.run(*arguments, "--json", **options).stdout)

    def error(self, *arguments: str, exit_code: int = 1, **options: Any) -> str:
        """The one line that says what is wrong."""
        text = self.text(*arguments, exit_code=exit_code, **options)
        assert text.count("\n") == 1, text
        return text


class Stage:
    """Brings messages into the states that a command is to find."""

    def __init__(self, app: RedisQ) -> None:
        self.app = app

    def waiting(self, queue: str, task: str = "answer", args: Sequence[Any] = (), **options: Any) -> str:
        return self.app.send(task, args, options.pop("kwargs", None), queue=queue, **options).id

    def processing(self, queue: str, worker: str = "worker1", **options: Any) -> str:
        job = self.waiting(queue, **options)
        self._claim(queue, worker)
        return job

    def settled(self, queue: str, op: str, *, delay: int = 0, reason: str = "failed", text: str = "", **options: Any) -> str:
        job = self.waiting(queue, **options)
        for delivery in self._claim(queue, "worker1"):
            settlement = Settlement(op, delivery.id, delivery.fence, delay, reason, text)
            assert self.app.connector.execute(commands.settle(self.app.keys(queue), [settlement])) == []
        return job

    def dead(self, queue: str, text: str = "ValueError: no", **options: Any) -> str:
        return self.settled(queue, "dead", text=text, **options)

    def _claim(self, queue: str, worker: str) -> list[Any]:
        claim = commands.claim(self.app.keys(queue), worker=worker, limit=1000, lease=60_000_000, max_crashes=3)
        return self.app.connector.execute(claim).deliveries
