"""Keep what is held: a thread of its own extends the leases, and carries acknowledgements off at once.

kombu's programs block: a callback, a pool of one process, a loop that nobody turns. The thread does not care, and it
works the same with an event loop and without one, with consumers and after the last was cancelled. It is a real thread
with gevent and eventlet too, so it shares no connection with the rest of the program: its sockets are served by an event
loop of its own there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redisq.broker.commands import MAX_BATCH, Command, Restored, Settlement, restore, settle
from redisq.broker.connection import Server
from redisq.broker.connector import Connector, Patience
from redisq.broker.forks import after_fork
from redisq.broker.keys import QueueKeys
from redisq.broker.leases import renew
from redisq.codec.summary import dead_letter
from redisq.errors import AccessDenied, BrokerError, BrokerUnavailable
from redisq.kombu.held import Held
from redisq.kombu.outage import Outage, OutageTroubles
from redisq.kombu.threads import Postponed, Threads
from redisq.words import counted

__all__ = ["Keeper"]

#: Seconds to wait before settlements that Redis did not take are sent again.
_AGAIN = 0.5
#: Seconds that the thread lets settlements gather. While messages flow, the next claim takes them along in its write, and the
#: thread is not needed: it would fight over the interpreter with the one that works.
_GATHER = 0.005
#: Seconds that settlements which met no Redis are not tried again. Shorter than `_AGAIN`, which the thread waits.
_AWAY = 0.4
#: Seconds after a failure in which `close` does not try to send what is left: the channels tried as they closed.
_GIVE_UP = 2.0
#: Seconds that `close` tries to send what is left.
_LAST_TRY = 1.0
#: What does not work, for the log.
_SETTLE = "settle messages"
_KEEP = "keep alive what is in use"
#: Why a message that was requeued is a dead letter.
_TOO_OFTEN = "it was requeued too often, see the transport option delivery_limit"
#: Endings by a settlement that makes no dead letter.
_NOT_DEAD = ("ack", "release")


class Ending(NamedTuple):
    """How one held message ends.

    Attributes:
        held: The message.
        how: `ack`, `release`, `restore` (back to its place), or the reason of a dead letter.
        limit: For `restore`: it counts as a requeue, and after so many the message may be a dead letter; 0: it is free.
        age: For `restore`: microseconds since the first requeue before it may be one.
    """

    held: Held
    how: str
    limit: int = 0
    age: int = 0


class Keeper:
    """Thread-safe. The thread starts with the first message that is held.

    Args:
        server: Where Redis is.
        lease: Microseconds.
        refresh: Called in the thread: prolongs what else lives only while somebody uses it, and says when to be called again.
        log: Where trouble is told.
        outage: Whether Redis is away, which the consumer may know too.
        leave: Called by `close`, when Redis can be reached.
    """

    def __init__(
        self,
        server: Server,
        lease: int,
        refresh: Callable[[Connector], float],
        log: logging.Logger,
        outage: Outage,
        leave: Callable[[Connector], None] = lambda _: None,
    ) -> None:
        self._server = server
        self._lease = lease
        self._refresh = refresh
        self._threads = Threads()
        self._postponed = Postponed(log) if self._threads.are_patched else None
        self._log = self._postponed or log
        self._troubles = OutageTroubles(self._log, outage)
        self._leave = leave
        self._foreign: set[str] = set()
        self._reset()
        after_fork(self._forked)

    def _forked(self) -> None:
        # A child holds nothing: its parent does, and settles it. What the child has a copy of it must not end.
        self._foreign.update(self._held)
        self._reset()

    def _reset(self) -> None:
        self._lock = self._threads.lock()
        self._sending = self._threads.long_lock()
        self._wanted = self._threads.bell()
        self._held: dict[str, Held] = {}
        self._endings: list[Ending] = []
        self._endings_left = False
        self._join: Callable[[float], object] | None = None
        self._connector: Connector | None = None
        self._closed = False
        self._refresh_at = 0.0
        self._failed_at = float("-inf")

    @property
    def count(self) -> int:
        """How many messages are held."""
        return len(self._held)

    def refresh_now(self) -> None:
        """There is something new to prolong. Starts the thread."""
        self._refresh_at = 0.0
        self.start()
        self._wanted.ring()

    def hold(self, held: Sequence[Held]) -> None:
        """Renew these leases until they end."""
        self._deliver_log()
        for each in held:
            self._held[each.tag] = each
        self.start()

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._join is None:
            with self._lock:
                if self._join is None and not self._closed:
                    self._join = self._threads.start(self._run, "redisq-kombu-keeper")

    def end(self, held: Held, how: str, limit: int = 0, age: int = 0) -> None:
        """A message ended, see `Ending`. Told to Redis within milliseconds, by the thread, or by whoever goes there first."""
        if held.tag in self._foreign:
            return
        with self._lock:
            self._endings.append(Ending(held, how, limit, age))
            first = len(self._endings) == 1
        if self._closed:
            # Acknowledged after its channel was closed, and so given back: the ack still counts.
            self.flush()
            self._carrier().close()
        elif first:
            self._wanted.ring()

    def forget(self, keys: QueueKeys) -> None:
        """The queue is deleted: nothing of it is held, or to be settled, any more."""
        with self._sending, self._lock:
            self._endings = [ending for ending in self._endings if ending.held.keys != keys]
            for tag in [tag for tag, held in self._held.items() if held.keys == keys]:
                del self._held[tag]

    def flush(self) -> bool:
        """Send all endings. False: Redis did not take them; the thread tries again."""
        return self._flush(self._carrier)

    def _flush(self, carrier: Callable[[], Connector], *, wait: bool = True) -> bool:
        if not self._sending.acquire(wait):
            return True
        try:
            if not self._endings:
                return True
            if time.monotonic() < self._failed_at + _AWAY:
                # Asked just now, in vain: a channel and its connection that close would each wait for it again.
                return False
            try:
                self._send(carrier(), ())
            except BrokerError as error:
                self._failed_at = time.monotonic()
                self._troubles.met(_SETTLE, error)
                return False
            self._failed_at = float("-inf")
            if self._troubles:
                self._troubles.over(_SETTLE)
            return not self._endings_left
        finally:
            self._sent()

    def _sent(self) -> None:
        """Let others send. The thread does not wait for that: a greenlet may hold the lock while another one computes."""
        self._sending.release()
        if self._endings:
            self._wanted.ring()

    def carry(self, commands: Sequence[Command[Any]], connector: Connector) -> list[Any]:
        """Carry commands, and before them in the same write what has ended. Gives their results, as the connector does.

        Raises:
            BrokerUnavailable: As the connector does; what has ended is sent later.
        """
        self._deliver_log()
        if not self._sending.acquire(blocking=False):
            # It is on its way already.
            return connector.execute_many(commands)
        try:
            return self._send(connector, commands)
        finally:
            self._sent()

    def _send(self, connector: Connector, more: Sequence[Command[Any]]) -> list[Any]:
        with self._lock:
            endings, self._endings = self._endings, []
        batches = _batches(endings)
        left: Sequence[Ending] = endings
        try:
            results = connector.execute_many([*(command for command, _ in batches), *more])
            left = self._ended(batches, results)
        finally:
            # Interrupted, too: what is sent twice is settled once.
            self._endings_left = bool(left)
            if left:
                with self._lock:
                    self._endings[:0] = left
        return results[len(batches) :]

    def _ended(self, batches: Sequence[tuple[Command[Any], list[Ending]]], results: Sequence[Any]) -> list[Ending]:
        """Gives those that Redis did not take, for now."""
        left: list[Ending] = []
        for (_, some), result in zip(batches, results, strict=False):
            if isinstance(result, BrokerUnavailable | AccessDenied):
                left += some
                continue
            if isinstance(result, BrokerError):
                self._log.error("Redis refused to settle %s, to run again later: %s", counted(len(some), "message"), result)
            else:
                self._say_dead(some, result)
            for ending in some:
                self._held.pop(ending.held.tag, None)
        return left

    def _say_dead(self, endings: Sequence[Ending], result: Sequence[str] | Restored) -> None:
        for ending in endings:
            ident = ending.held.delivery.id
            if isinstance(result, Restored):
                if ident in result.dead:
                    self._log.warning("%s", dead_letter(ending.held.queue, ending.held.delivery, "delivery_limit", _TOO_OFTEN))
            elif ending.how not in _NOT_DEAD and ident not in result:
                self._log.warning("%s", dead_letter(ending.held.queue, ending.held.delivery, ending.how, ""))

    def close(self) -> None:
        """Stop the thread and its renewals; send what is left, within about a second."""
        with self._lock:
            self._closed = True
            join = self._join
        self._wanted.ring()
        if join:
            join(_LAST_TRY)
        if time.monotonic() > self._failed_at + _GIVE_UP and self.flush():
            with suppress(BrokerError):
                self._leave(self._carrier())
        self._held.clear()
        if self._connector:
            self._connector.close()
        self._deliver_log()

    def _deliver_log(self) -> None:
        if self._postponed:
            self._postponed.deliver()

    def _carrier(self) -> Connector:
        """The connector of those who call: the thread has its own."""
        if self._connector is None:
            self._connector = self._new_connector()
        return self._connector

    def _new_connector(self) -> Connector:
        return self._server.connector("kombu-keeper", patience=Patience(_LAST_TRY))

    def _run(self) -> None:
        connector = self._new_connector()
        try:
            self._keep(connector)
        finally:
            connector.close()

    def _keep(self, connector: Connector) -> None:
        interval = self._lease / 3_000_000
        renew_at = time.monotonic() + interval
        while not self._closed:
            self._wanted.wait(max(min(renew_at, self._refresh_at) - time.monotonic(), 0))
            if self._endings and not self._closed:
                time.sleep(_GATHER)
            self._wanted.clear()
            if self._closed:
                return
            try:
                if not self._flush(lambda: connector, wait=False) and not self._closed:
                    time.sleep(_AGAIN)
                    self._wanted.ring()
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + interval
                    self._renew(connector)
                if time.monotonic() >= self._refresh_at:
                    self._prolong(connector)
            except BrokerError as error:
                self._troubles.met(_KEEP, error)
                time.sleep(_AGAIN)
            except Exception:  # noqa: BLE001 - the leases live on this thread: the next round is another try
                self._log.exception("Keeping leases failed")
                time.sleep(_AGAIN)

    def _prolong(self, connector: Connector) -> None:
        # Set first: `refresh_now` may be called meanwhile.
        self._refresh_at = float("inf")
        again = _AGAIN
        try:
            again = self._refresh(connector)
        finally:
            self._refresh_at = min(self._refresh_at, time.monotonic() + again)

    def _renew(self, connector: Connector) -> None:
        for held, verdict in renew(connector, list(self._held.values()), self._lease, self._troubles):
            # What somebody cancelled stays held: kombu cannot stop a run. It goes when it ends, however it ends.
            if verdict == "lost" and self._held.pop(held.tag, None) is not None:
                self._log.warning("Lost the lease of message %s of queue %s", held.delivery.id, held.queue)


def _batches(endings: Sequence[Ending]) -> list[tuple[Command[Any], list[Ending]]]:
    by_call: dict[tuple[QueueKeys, str, int, int], list[Ending]] = {}
    for ending in endings:
        kind = "restore" if ending.how == "restore" else "settle"
        by_call.setdefault((ending.held.keys, kind, ending.limit, ending.age), []).append(ending)
    batches: list[tuple[Command[Any], list[Ending]]] = []
    for (keys, kind, limit, age), all_ in by_call.items():
        for at in range(0, len(all_), MAX_BATCH):
            some = all_[at : at + MAX_BATCH]
            if kind == "restore":
                command: Command[Any] = restore(
                    keys, [(each.held.delivery.id, each.held.delivery.fence) for each in some], limit=limit, age=age
                )
            else:
                command = settle(keys, [_settlement(each) for each in some])
            batches.append((command, some))
    return batches


def _settlement(ending: Ending) -> Settlement:
    delivery = ending.held.delivery
    if ending.how == "ack":
        return Settlement("ack", delivery.id, delivery.fence)
    if ending.how == "release":
        return Settlement("release", delivery.id, delivery.fence)
    # What is left is the reason of a dead letter.
    return Settlement("dead", delivery.id, delivery.fence, 0, ending.how)
