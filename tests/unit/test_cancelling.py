"""Tasks are ended for certain."""

from __future__ import annotations

import asyncio

import pytest

from redisq.cancelling import end_tasks


def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # As `asyncio.wait_for` of Python 3.11 does now and then.
                break
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await end_tasks((task,))
        assert task.cancelled()

    asyncio.run(main())


def test_what_a_task_raises_at_its_end_is_nobodys_business(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("too late")

    async def main() -> None:
        await end_tasks([])
        ended = asyncio.create_task(asyncio.sleep(0))
        await ended
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        await end_tasks((task, ended))
        assert task.done()

    asyncio.run(main())
    assert caplog.records == []
