from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.stage import Stage


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Set up a run; none of its processes outlives the test."""
    stages: list[Stage] = []

    def make(*options: str, **settings: Any) -> Stage:
        stages.append(Stage(tmp_path, *options, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
