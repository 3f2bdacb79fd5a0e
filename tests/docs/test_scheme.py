"""The examples' own rules: nothing on a page passes by not being looked at."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs import redis_cli
from tests.docs.expected import Ids
from tests.docs.pages import Block, parse
from tests.docs.scenario import Scenario, commands
from tests.servers import RedisServer

FAILURES = (AssertionError, configparser.Error, yaml.YAMLError)

ID, OTHER = "gcg6BQSKo4iijm7W", "Zz0aBQSKo4iijm7W"


@pytest.fixture
def scenario(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> Iterator[Scenario]:
    scenario = Scenario(redis_server.port, tmp_path)
    yield scenario
    scenario.kill()


def only(text: str) -> Block:
    (block,) = parse("page.md", text)
    return block


@pytest.mark.parametrize(
    "text",
    [
        "```text\nanything\n```\n",
        "```\nanything\n```\n",
        "```bash\nls\n```\n",
        "<!-- not a mark -->\n```python\npass\n```\n",
        "<!-- file: page.xyz -->\n```text\n```\n",
        "<!-- output -->\n```text\nof nothing\n```\n",
        "<!-- log -->\n```text\nof nothing\n```\n",
        "```python\nraise ValueError\n```\n",
        "```python\nimport nothing_of_that_name\n```\n",
        "<!-- file: bot.py -->\n```python\nnot python\n```\n",
        "<!-- file: a.yml -->\n```yaml\na: [\n```\n",
        "<!-- file: a.service -->\n```ini\nno section\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo a\nb\n```\n",
        "```console\n$ echo a; echo b\na\n```\n",
        "```console\n$ redis-cli nonsense\n```\n",
        "```console\n$ sudo reboot\n```\n",
        "```console\nno command\n```\n",
        "<!-- background -->\n```console\n$ echo a\nb\n```\n",
    ],
)
def test_a_block_that_is_wrong_fails(text: str, scenario: Scenario) -> None:
    with pytest.raises(FAILURES):
        scenario.run(only(text))


def test_an_indented_block_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"page\.md:2: an indented block"):
        list(parse("page.md", "- item\n  ```python\n  pass\n  ```\n"))


def test_directives_are_no_examples() -> None:
    assert list(parse("page.md", "```{toctree}\na\n```\n")) == []


def test_a_mark_is_of_the_next_block_alone() -> None:
    first, second = parse("page.md", "<!-- file: a.py -->\n\n```python\n```\n\ntext\n\n```python\n```\n")
    assert (first.mark, first.value, second.mark) == ("file", "a.py", "")


def test_names_live_on_and_await_stands_anywhere(scenario: Scenario) -> None:
    for text in (
        "```python\nimport asyncio\nx = 1\n```\n",
        "```python\nawait asyncio.sleep(0)\nprint(x)\n```\n",
        "<!-- output -->\n```text\n1\n```\n",
    ):
        scenario.run(only(text))
    scenario.end()


def test_commands_with_their_output() -> None:
    assert commands(only("```console\n$ a \\\n    b\n1\n$ c    # why\n```\n")) == [("a b", ["1"]), ("c", [])]


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        (["a  b"], ["a b"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["...", "b"], ["a", "a", "b"], True),
        (["a", "..."], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b"], False),
        (["took 1.5 s"], ["took 0.3 s"], True),
        (["took 1.5 s"], ["took 3 ms"], True),
        (["2026-11-24 05:03:52,064 - x"], ["2027-01-01 00:00:00,000 - x"], True),
        (["error ... here"], ["error over here"], True),
        ([f"{ID} {ID}"], [f"{OTHER} {OTHER}"], True),
        ([f"{ID} {ID}"], [f"{OTHER} {ID}"], False),
    ],
)
def test_what_is_shown_and_what_is_printed(shown: list[str], printed: list[str], fits: bool) -> None:
    assert (Ids().mismatch(shown, printed) is None) is fits


def test_an_id_stands_for_the_one_that_was_printed_there() -> None:
    ids = Ids()
    assert ids.fits(f"job {ID}", f"job {OTHER}")
    assert ids.put_in(f"redisq inspect {ID}") == f"redisq inspect {OTHER}"
    assert not ids.fits(f"job {ID}", f"job {ID}")


@pytest.mark.parametrize(
    ("reply", "printed"),
    [
        (3, "(integer) 3"),
        (None, "(nil)"),
        (b"a", '"a"'),
        ([b"a", 1], '1) "a"\n2) (integer) 1'),
        ([], "(empty array)"),
        (b"# Memory\r\nused_memory:1", "# Memory\r\nused_memory:1"),
    ],
)
def test_the_stand_in_prints_as_redis_cli_does(reply: object, printed: str) -> None:
    assert redis_cli.shown(reply) == printed
