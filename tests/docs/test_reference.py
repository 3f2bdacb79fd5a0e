"""What the pages state as a fact is one."""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import click
import pytest
import redis
import yaml

from redisq import RedisQ, Worker
from redisq.app.settings import TaskOptions
from redisq.broker.scripts import SCRIPT_NAMES, Scripts
from redisq.cli.main import main
from redisq.codec.msgpack import decode_value, encode_value
from tests.docs.pages import DOCS, ROOT, blocks, pages

#: Of the former queue's guide: what operators type, and what they look for. Each is on a page, word for word.
GUIDE = (
    "docker-compose restart bot-logic",
    "sudo systemctl restart bot-logic",
    "docker-compose logs -f bot-logic",
    "sudo journalctl -u bot-logic -f",
    "INFO - Initialized Redis connection",
    "INFO - Started chat API queue processor",
    "redis-cli zcard chat_api:queue:main",
    "redis-cli zcard chat_api:queue:retry",
    "redis-cli zcard chat_api:queue:dlq",
    "redis-cli hgetall chat_api:stats",
    "redis-cli del chat_api:lock:global_lock",
    "redis-cli info memory",
    "logging.getLogger('bot_logic').setLevel(logging.DEBUG)",
    "max_connections",
)

#: The names in the golden table's values.
NAMES = {
    "UTC": UTC, "Decimal": Decimal, "UUID": UUID, "date": date, "datetime": datetime, "time": time, "timedelta": timedelta
}  # fmt: skip


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows(page: str, after: str, columns: int) -> list[tuple[str, ...]]:
    """The rows of the first table behind a text on a page, without its headers and backquotes."""
    lines = text(page).partition(after)[2].splitlines()
    found: list[tuple[str, ...]] = []
    for line in lines:
        if line.startswith("|"):
            cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
            assert len(cells) == columns, line
            found.append(cells)
        elif found:
            break
    return [tuple(cell.strip("`") for cell in row) for row in found[2:]]


GOLDEN = rows("reference/wire-format.md", "(golden-bytes)=", 2)


@pytest.mark.parametrize(("value", "raw"), GOLDEN)
def test_golden_bytes(value: str, raw: str) -> None:
    meant = eval(value, dict(NAMES))
    assert encode_value(meant).hex(" ") == raw
    assert decode_value(bytes.fromhex(raw)) == meant


def test_there_is_a_golden_value_of_each_extension_type() -> None:
    assert {type(eval(value, dict(NAMES))) for value, _ in GOLDEN} >= {datetime, date, time, timedelta, Decimal, UUID}


def test_the_page_has_all_counters() -> None:
    sources = "".join(Scripts()[name].source for name in SCRIPT_NAMES)
    lists = re.findall(r"read_stats\(\{ (.*?) \}\)", sources) + re.findall(r"COUNTERS = \{ (.*?) \}", sources)
    names = {name for each in lists for name in re.findall(r"'?([a-z_]+)'?(?: = true)?", each) if name not in ("counter", "true")}
    names |= set(re.findall(r"'(?:HINCRBY|HSET)', (?:STATS|stats), '(\w+)'", sources))
    assert {row[0] for row in rows("reference/keys.md", "(counters)=", 2)} == names


def test_keys_that_are_there_for_each_of_something(redis_url: str, raw: redis.Redis) -> None:
    app = RedisQ("docs", url=redis_url)

    @app.task(queue="chat_api", result_ttl=60)
    async def answer() -> None: ...

    async def run() -> None:
        job = await answer.adelay()
        await Worker(app, burst=True).run()
        await app.aclose()
        assert raw.type(app.keys("chat_api").result(job.id)) == b"string"

    asyncio.run(run())
    assert {raw.type(key) for key in raw.scan_iter("chat_api:call:*")} == {b"string"}


@pytest.mark.parametrize("line", GUIDE)
def test_each_line_of_the_former_guide_has_its_place(line: str) -> None:
    assert any(line in (ROOT / page).read_text(encoding="utf-8") for page in pages() if page != "README.md")


def test_the_table_of_retries_has_the_defaults() -> None:
    defaults = {field.name: field.default for field in fields(TaskOptions)}
    shown = dict(row[:2] for row in rows("how-to/tune.md", "## Retries", 3))
    numbers = {name: value.removesuffix(" s") for name, value in shown.items() if value[0].isdigit()}
    assert numbers == {name: f"{defaults[name]:g}" for name in ("max_retries", "retry_backoff", "retry_backoff_max")}


def test_the_commands_of_the_deployment_files_are_ones() -> None:
    files = {block.value: block.text for block in blocks("docs/how-to/deploy.md") if block.mark == "file"}
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string(files["bot-logic.service"])
    compose = yaml.safe_load(files["docker-compose.yml"])
    lines = [unit["Service"]["ExecStart"], compose["services"]["bot-logic"]["command"]]
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program.rpartition("/")[2] == "redisq"
        context = click.Context(main)
        command = main.get_command(context, name)
        assert command
        command.make_context(name, arguments, parent=context)


COMMANDS = main.list_commands(click.Context(main))

#: What the pages call missing, by the page and its words; and whether it is there now.
MISSING: list[tuple[str, str, bool]] = [
    ("how-to/replace-the-old-queue.md", "a tool that moves them does not exist yet", "migrate" in COMMANDS),
    ("how-to/replace-the-old-queue.md", "Named locks for other uses: not yet", hasattr(RedisQ, "lock")),
    ("how-to/replace-the-old-queue.md", "no call in Python yet", hasattr(RedisQ, "queue_length") or hasattr(RedisQ, "status")),
    ("how-to/replace-the-old-queue.md", "rate limiting, a web dashboard and sharding are not yet", "web" in COMMANDS),
    ("explanation/promises.md", "Named locks: not there yet", hasattr(RedisQ, "lock")),
]


@pytest.mark.parametrize(("page", "words", "there"), MISSING)
def test_what_the_pages_call_missing_is_missing(page: str, words: str, there: bool) -> None:
    assert words in " ".join(text(page).split())
    assert not there, f"docs/{page} says {words!r}, and it is there now: say what it is, and take it out of MISSING"


@pytest.mark.parametrize("page", pages())
def test_each_command_that_the_text_names_exists(page: str) -> None:
    prose = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"))
    for span in re.findall(r"`redisq ([^`]+)`", prose):
        command: click.Command = main
        for word in span.replace("|", " ").split():
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            found = command.get_command(click.Context(command), word)
            assert found, f"{page}: `redisq {span}`"
            command = found if isinstance(found, click.Group) else command if "|" in span else found
