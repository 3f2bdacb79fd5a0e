"""How results are printed: aligned columns for people, JSON for programs. No colours, and nothing that moves a cursor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click

from redisq.redact import escape

__all__ = ["print_fields", "print_json", "print_table", "say", "span"]


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(escape(text), err=err)


def print_json(value: object) -> None:
    """Print one JSON value, in ASCII: safe on every terminal, and exact for every parser."""
    click.echo(json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f"))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns with their names above: numbers to the right, text to the left."""
    cells = [[escape(str(value)) for value in row] for row in rows]
    widths = [max(len(header), *(len(row[at]) for row in cells)) if cells else len(header) for at, header in enumerate(headers)]
    numeric = [bool(rows) and all(isinstance(row[at], int) for row in rows) for at in range(len(headers))]
    for row in (headers, *cells):
        columns = zip(row, widths, numeric, strict=True)
        click.echo("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns).rstrip())


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one field a line, the names aligned; what is None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        say(f"{name.ljust(width)}  {value}")


def span(seconds: float) -> str:
    """Return a length of time in words, in its two largest units: `2 h 5 min`."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])
