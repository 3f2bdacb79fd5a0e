"""The pages and the examples in them.

Each fenced block of a page is an example, and each example is carried out, in the order of its page. Blocks of one page
work on one empty database and in one empty folder. What is done follows from the block's language, and from a mark, a
comment on the line above it:

======================================  ==================================================================================
```python                               run in the page's interpreter, where names live on; `await` may stand anywhere
<!-- file: bot.py --> and any language  written to that file; Python is imported too; others are checked to be well-formed
```console                              each line after `$ ` is run in a shell; the lines below it are what it has to print
<!-- background --> ```console          its last command goes on until the page's end; the lines are awaited in its output
<!-- output --> ```text                 what the Python block above has to have printed
<!-- log --> ```text                    lines that are awaited in the output of the last command in the background
<!-- drawing --> ```text                no example, but a picture made of letters
```{directive}                          no example
======================================  ==================================================================================

Of what has to be printed, `...` stands for any text, alone on a line for any lines. Times, and lengths of time, stand
for any others. A job's id stands for the one that was printed in its place, from there on also in commands and code.
`localhost:6379` stands for the test's server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_MARK = re.compile(r"<!-- (.*) -->")
_FENCE = re.compile(r"(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})(?P<info>.*)")


@dataclass(frozen=True)
class Block:
    """One fenced block: the line of its first line, from 1; its mark's name and value."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """All pages, by their path from the root."""
    found = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    return sorted(path.relative_to(ROOT).as_posix() for path in (*found, ROOT / "README.md"))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, without directives."""
    return list(parse(page, (ROOT / page).read_text(encoding="utf-8")))


def parse(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a text."""
    mark = ("", "")
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if fence := _FENCE.fullmatch(line):
            assert not fence["indent"], f"{page}:{number}: an indented block is not read by the tests: begin it at the margin"
            body = []
            for _, inner in lines:
                if inner.strip() == fence["ticks"]:
                    break
                body.append(inner)
            if not fence["info"].startswith("{"):
                yield Block(page, number + 1, fence["info"].strip(), "\n".join(body) + "\n", *mark)
        found = _MARK.fullmatch(line)
        if found and found[1] in ("fmt: off", "fmt: on"):
            continue  # for ruff
        if found:
            name, _, value = found[1].partition(": ")
            mark = (name, value)
        elif line.strip():
            mark = ("", "")
