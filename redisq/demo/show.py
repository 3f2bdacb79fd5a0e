"""How the demo is shown: what a show must do, one for programs, one of plain lines."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import click

from redisq.broker.commands import QueueView
from redisq.demo.end import further, rows
from redisq.demo.result import Result

__all__ = ["Lines", "Show", "Silence"]


class Show(Protocol):
    """What the demo tells. Entered when the demo begins, left when it ends, however it does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def event(self, seconds: float, text: str, kind: str) -> None:
        """Something happened; `kind` is good, bad or nothing of these."""

    def progress(self, seconds: float, total: int, view: QueueView) -> None:
        """How the queue looks now."""

    def end(self, result: Result) -> None:
        """All is over and cleaned up."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def event(self, seconds: float, text: str, kind: str) -> None:
        """Something happened."""

    def progress(self, seconds: float, total: int, view: QueueView) -> None:
        """How the queue looks now."""

    def end(self, result: Result) -> None:
        """All is over."""


class Lines(Silence):
    """One line for each event, one each second for the progress."""

    def __init__(self) -> None:
        self._next = 1.0

    def event(self, seconds: float, text: str, kind: str) -> None:  # noqa: ARG002
        """Print it: good or bad, the words say."""
        click.echo(f"{seconds:5.1f} s  {text}")

    def progress(self, seconds: float, total: int, view: QueueView) -> None:
        """Print it when the last time is a second ago."""
        if seconds >= self._next:
            self._next = seconds + 1
            answered = view.stats.get("processed_requests", 0)
            click.echo(
                f"{seconds:5.1f} s  {answered} of {total} answered; {view.waiting} waiting, {view.delayed} delayed,"
                f" {view.retry} retry, {view.processing} processing, {view.dead} dead"
            )

    def end(self, result: Result) -> None:
        """Print the table, and what to do next."""
        click.echo()
        for name, number, words in rows(result):
            click.echo(f"{name:<18}{number:>9}  {words}".rstrip())
        click.echo()
        heads, commands = further(result.url)
        for head in heads:
            click.echo(head)
        for command, words in commands:
            click.echo(f"  {command:<24}{words}")
