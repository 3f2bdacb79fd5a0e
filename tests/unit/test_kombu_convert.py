"""What kombu publishes, as it is enqueued."""

from __future__ import annotations

import pytest

from redisq.kombu.convert import to_enqueue
from redisq.kombu.options import Options
from redisq.message import head_start_of


@pytest.mark.parametrize("higher_first", [True, False])
@pytest.mark.parametrize("priority", [None, 0, 3, 9])
def test_the_id_tells_the_head_start(higher_first: bool, priority: int | None) -> None:
    options = Options(higher_priority_first=higher_first)
    message = to_enqueue({"properties": {"priority": priority}}, b"", options)
    assert head_start_of(message.id) == message.head_start == options.head_start(priority)
    assert (len(message.id) == 16) == (not priority)
