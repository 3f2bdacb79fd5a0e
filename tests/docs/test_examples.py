"""Every example on every page does what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.not_run import NOT_RUN, why_not
from tests.docs.pages import blocks, pages
from tests.docs.scenario import Scenario, commands
from tests.servers import RedisServer


@pytest.fixture
def scenario(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> Iterator[Scenario]:
    scenario = Scenario(redis_server.port, tmp_path)
    yield scenario
    scenario.kill()


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page)])
def test_the_examples_of_the_page(page: str, scenario: Scenario) -> None:
    for block in blocks(page):
        scenario.run(block)
    scenario.end()


def test_each_line_that_is_not_run_is_on_a_page_and_has_a_reason() -> None:
    consoles = [block for page in pages() for block in blocks(page) if block.language == "console"]
    assert {why_not(command) for block in consoles for command, _ in commands(block)} >= set(NOT_RUN)
    assert all(NOT_RUN.values())
