"""Numbers in logs, errors and answers go with their nouns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import redisq
from redisq.words import counted

ROOT = Path(redisq.__file__).parent

#: A number with a noun that is fixed to its plural: `%d messages`, or `{}` in place of what an f-string writes.
FIXED = re.compile(
    r"(?:%d|%s|\{\}) (?:\w+ )?"
    r"(?:messages|jobs|tasks|workers|handlers|queues|slots|calls|processes|threads|times|lanes|bytes|letters)\b"
)

#: Numbers that are never one, or a share of another: `3/10 slots`.
NEVER_ONE = {
    "{} bytes, more than {}: keep large things elsewhere and send where they are",
    "more than {} bytes",
    "any of {} queues",
    "{} of {} messages were accepted, then: {}",
    "{} messages accepted: {} for now, {} for later, {} with priority; {} workers start",
    ", its {} next messages wait in order",
    "; {} workers start",
    "{}  {}  pid {}  {}/{} slots  {} ended  up {} s  {}",
}


def texts(file: Path) -> Iterator[str]:
    """Give the texts of a module that are no docstrings, f-strings with `{}` for what they write."""
    tree = ast.parse(file.read_text())
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside.update(node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("message",), "0 messages"),
        (1, ("message",), "1 message"),
        (2, ("message",), "2 messages"),
        (1, ("process", "processes"), "1 process"),
        (2, ("process", "processes"), "2 processes"),
    ],
)
def test_number_goes_with_its_noun(count: int, nouns: tuple[str, ...], text: str) -> None:
    assert counted(count, *nouns) == text


def test_no_text_has_a_number_with_a_fixed_plural() -> None:
    found = {text for file in ROOT.rglob("*.py") for text in texts(file) if FIXED.search(text)}
    assert found - NEVER_ONE == set()
