"""How results are shown: one table a topic for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, measured several times. Its value is the median."""

    runs: tuple[float, ...]

    @classmethod
    def of(cls, runs: Iterable[float]) -> Figure:
        return cls(tuple(runs))

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def over(self, base: Figure) -> Figure:
        """The ratio to another figure of the same rounds, round by round: noise that lasts longer than a round cancels out."""
        return Figure.of(ours / theirs for ours, theirs in zip(self.runs, base.runs, strict=True))

    def __str__(self) -> str:
        if min(self.runs) == max(self.runs):
            return short(self.median)
        return f"{short(self.median)} ({short(min(self.runs))}-{short(max(self.runs))})"


Cell = Figure | float | int | str | None
Row = dict[str, Cell]


def short(value: float) -> str:
    """A number with as many digits as mean something."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def parser(description: str | None, runs: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--runs", type=int, default=runs, help="how often each figure is taken; the median counts")
    options.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return options


def environment(client: redis.Redis) -> dict[str, Any]:
    """Where the figures were taken."""
    server = client.info("server")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "redis": server["redis_version"],
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


class Report:
    """Collects tables, and prints them at once or at the end."""

    def __init__(self, client: redis.Redis, as_json: bool) -> None:
        self._as_json = as_json
        self._all: dict[str, Any] = {"environment": environment(client)}
        if not as_json:
            print(", ".join(f"{name} {value}" for name, value in self._all["environment"].items()))

    def table(self, title: str, rows: list[Row]) -> None:
        """Add one table; all rows have the same columns."""
        self._all[title] = [{name: _plain(cell) for name, cell in row.items()} for row in rows]
        if not self._as_json:
            print(f"\n{title}\n{_drawn(rows)}", flush=True)

    def finish(self) -> None:
        """Print the JSON, if that was wanted."""
        if self._as_json:
            print(json.dumps(self._all, indent=2))


def _plain(cell: Cell) -> Any:
    return {"median": cell.median, "runs": list(cell.runs)} if isinstance(cell, Figure) else cell


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return short(cell) if isinstance(cell, int | float) else str(cell)


def _drawn(rows: list[Row]) -> str:
    lines = [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]

    def draw(line: list[str]) -> str:
        first, *rest = (
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    ruler = "|" + "|".join("-" * (width + 1) + (":" if at else "-") for at, width in enumerate(widths)) + "|"
    return "\n".join([draw(lines[0]), ruler, *map(draw, lines[1:])])
