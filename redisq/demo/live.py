"""The demo on a terminal, with rich: events pass by, the progress stays below them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from redisq.broker.commands import QueueView
from redisq.demo.end import further, rows
from redisq.demo.result import Result

__all__ = ["Live", "progress_panel"]

_EVENTS = {"good": "green", "bad": "red", "": ""}
_STATES = {"answered": "bold green", "dead": "bold red", "retry": "bold yellow"}
_ROWS = {"answered": "green", "retried": "yellow", "taken back": "yellow", "dead letters": "red", "in order": "green"}


class Live:
    """What the viewer sees.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = LiveDisplay(console=console, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self._live.stop()

    def event(self, seconds: float, text: str, kind: str) -> None:
        """Print it above the progress."""
        line = Table.grid(padding=(0, 2))
        line.add_row(Text(f"{seconds:5.1f} s", style="dim"), Text(text, style=_EVENTS[kind]))
        self._console.print(line)

    def progress(self, seconds: float, total: int, view: QueueView) -> None:
        """Draw it anew."""
        self._live.update(progress_panel(seconds, total, view))

    def end(self, result: Result) -> None:
        """Print the table, and what to do next."""
        table = Table(box=box.HORIZONTALS, show_header=False, border_style="dim")
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        for name, number, words in rows(result):
            style = _ROWS.get(name, "")
            table.add_row(Text(name, style=style), Text(number, style=f"bold {style}"), Text(words))
        self._console.print(table)
        heads, commands = further(result.url)
        self._console.print(Text("\n".join(heads)))
        grid = Table.grid(padding=(0, 2))
        for command, words in commands:
            grid.add_row(Text(f"  {command}", style="cyan"), Text(words, style="dim"))
        self._console.print(grid)


def progress_panel(seconds: float, total: int, view: QueueView) -> RenderableType:
    """Return how far the demo is."""
    answered = view.stats.get("processed_requests", 0)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        Text(f"{seconds:5.1f} s", style="dim"),
        ProgressBar(total=total, completed=answered + view.dead, width=40),
        Text(f"{answered + view.dead} of {total}"),
    )
    states = Table(box=None, padding=(0, 2), pad_edge=False)
    numbers = {
        "waiting": view.waiting, "delayed": view.delayed, "retry": view.retry, "processing": view.processing,
        "answered": answered, "dead": view.dead,
    }  # fmt: skip
    for name in numbers:
        states.add_column(name, justify="right", header_style="dim")
    states.add_row(*(Text(str(number), style=_STATES.get(name, "bold")) for name, number in numbers.items()))
    return Group(Text(), bar, states)
