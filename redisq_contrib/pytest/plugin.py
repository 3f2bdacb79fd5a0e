"""The pytest plugin: the fixture `redisq_sandbox`.

pytest loads it in every run of an environment that has redisq installed, so it imports nothing until a test asks for the
fixture. That is why it is not in `redisq.testing`, whose import is that of all of redisq.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redisq.testing import Sandbox

__all__ = ["redisq_sandbox"]


@pytest.fixture
def redisq_sandbox() -> Iterator[Callable[..., Sandbox]]:
    """Put apps on an empty Redis in this process until the test ends.

    `box = redisq_sandbox(app)`, or `redisq_sandbox(app, eager=True)`: as `redisq.testing.sandbox`.
    """
    from redisq.testing import sandbox

    with ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(sandbox(app, **options))
