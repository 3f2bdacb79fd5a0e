"""What an app has in each event loop that its async calls come from: a connector, and a writer that keeps their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from redisq.broker.connector import AsyncConnector
from redisq.broker.forks import after_fork
from redisq.broker.writer import OrderedWriter

__all__ = ["LoopSide", "Loops"]


class LoopSide:
    """An app's connections in one event loop.

    Attributes:
        connector: For all calls.
        writer: For enqueues, which keep their order.
    """

    def __init__(self, connector: AsyncConnector) -> None:
        self.connector = connector
        self.writer = OrderedWriter(connector)

    async def aclose(self) -> None:
        """Fail what is on its way, and close all connections."""
        await self.writer.aclose()
        await self.connector.aclose()


class Loops:
    """The loop sides of one app. Thread-safe; a forked child starts without any.

    Args:
        connect: Makes a connector for the running loop.
    """

    def __init__(self, connect: Callable[[], AsyncConnector]) -> None:
        self._connect = connect
        self._forget()
        after_fork(self._forget)

    def _forget(self) -> None:
        # The sockets are the parent's; and the lock may be held by a thread that the child does not have.
        self._lock = threading.Lock()
        self._sides: dict[asyncio.AbstractEventLoop, tuple[LoopSide, AsyncGenerator[None, None]]] = {}

    @property
    def here(self) -> LoopSide:
        """The side of the running loop, made when first used. It ends with the loop."""
        loop = asyncio.get_running_loop()
        found = self._sides.get(loop)
        if found is None:
            side = LoopSide(self._connect())
            found = side, self._until_loop_ends(loop, side)
            # The loop registers an async generator at its first step, and closes it in `shutdown_asyncgens`, which
            # `asyncio.run` calls before it closes the loop: the one hook that a loop has for its end.
            _step(found[1])
            with self._lock:
                # A loop that was closed without it leaves its side here: a side keeps its loop alive, so no weak
                # reference ever frees the two.
                self._sides = {other: kept for other, kept in self._sides.items() if not other.is_closed()}
                self._sides[loop] = found
        return found[0]

    async def _until_loop_ends(self, loop: asyncio.AbstractEventLoop, side: LoopSide) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            with self._lock:
                self._sides.pop(loop, None)
            await side.aclose()

    async def aclose(self) -> None:
        """Close the side of the running loop, if there is one."""
        found = self._sides.get(asyncio.get_running_loop())
        if found:
            await found[1].aclose()


def _step(generator: AsyncGenerator[None, None]) -> None:
    """Run a generator to its first `yield`, which awaits nothing."""
    with suppress(StopIteration):
        generator.__anext__().send(None)
