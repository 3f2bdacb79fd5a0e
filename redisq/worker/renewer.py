"""Extend the leases of what the worker holds: a thread and a connection of its own, so that no handler can block it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable

from redisq.broker.connector import Connector
from redisq.broker.leases import renew
from redisq.clocks import monotonic
from redisq.troubles import Troubles
from redisq.worker.exits import LAST_WORD
from redisq.worker.held import Held

__all__ = ["Renewer"]


class Renewer:
    """Every third of a lease: an explicit list of leases, started or not, gets a new deadline.

    Args:
        connector: Its own, sync.
        lease: Microseconds.
        held: Returns what is held now; called from the thread.
        lost: Told each lease that is not ours any more, in the loop.
        cancelled: Told each that somebody cancelled, in the loop, at every renewal until it has ended.
        loop: That loop.
        troubles: Told what does not work.
        log: The worker's logger.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        connector: Connector,
        lease: int,
        held: Callable[[], Iterable[Held]],
        lost: Callable[[Held], None],
        cancelled: Callable[[Held], object],
        loop: asyncio.AbstractEventLoop,
        troubles: Troubles,
        log: logging.Logger,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._connector = connector
        self._lease = lease
        self._held = held
        self._tell: dict[str, Callable[[Held], object]] = {"lost": lost, "cancel": cancelled}
        self._loop = loop
        self._troubles = troubles
        self._log = log
        self._now = now
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redisq-renewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and see it end unless Redis hangs; it closes its connection."""
        self._stopped.set()
        self._thread.join(LAST_WORD)

    def _run(self) -> None:
        interval = self._lease / 3_000_000
        while not self._stopped.wait(interval):
            try:
                self.renew()
            except Exception:  # noqa: BLE001 - logged; without this thread every lease would be lost
                self._log.exception("Could not extend leases, trying again in %.1f s", interval)
        self._connector.close()

    def renew(self) -> None:
        """Extend all that is held and whose task may still run, and no longer than it may."""
        now = self._now()
        alike: dict[int, list[Held]] = {}
        for held in self._held():
            # Whole seconds: few commands for many runs.
            lease = self._lease if held.until is None else min(self._lease, int(held.until - now) * 1_000_000)
            if held.leased and not held.lost and lease > 0:
                alike.setdefault(lease, []).append(held)
        for lease, wanted in alike.items():
            for held, verdict in renew(self._connector, wanted, lease, self._troubles):
                try:
                    self._loop.call_soon_threadsafe(self._tell[verdict], held)
                except RuntimeError:
                    return  # the loop is closed: nobody runs it any more
