"""Claim what there is room for, carry the settlements, sleep when there is nothing to do.

One trip to Redis carries the settlements that have gathered and, behind them in the same write, a claim for the room
that they free: the server frees before it leases, so a worker never holds more leases than it has room for. Up to
`MAX_TRIPS` trips are unanswered at a time; while all are out, settlements gather (group commit). An idle worker blocks on
the queues' wake keys, on a connection of its own, with the claim written right behind the blocking read.

A queue is *short* when its first messages have no room here: all threads are busy, say. It is asked again when that pool has
room. Besides, every `LOOK_AGAIN` seconds one of the short queues that do not rest is looked into, for messages of other pools
behind those; less often when the last look found none and took long, as it does when many workers look, or when messages are large;
at once when it found some. The worker does not block on its wake key meanwhile: the hint is for those who have room.

Of several queues the first that is not known to be empty is asked. But after `IN_ORDER` claims like that, a queue that was
not asked for a second goes first, once: so none starves, and none is taken for empty for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from redisq.broker.commands import MAX_BATCH, MAX_LOOKS, Claimed, Command, Room, Settlement, claim, given_back, look, wait, wake
from redisq.broker.connection import BLOCK_SECONDS
from redisq.broker.connector import AsyncConnector
from redisq.broker.keys import QueueKeys
from redisq.cancelling import end_tasks
from redisq.codec.summary import dead_letter
from redisq.errors import BrokerError
from redisq.troubles import Troubles
from redisq.worker.held import Held
from redisq.worker.observers import Observers
from redisq.worker.rooms import Rooms
from redisq.worker.settler import Batch, Settler

__all__ = ["MAX_TRIPS", "Consumer", "refused"]

#: Unanswered calls at most. With one, what ends during its answer waits; more than four gain nothing.
MAX_TRIPS = 4

#: A queue that was not asked for a block goes first, but no more than once after so many claims in order.
IN_ORDER = 3

#: Messages that a claim looks at in a short queue, and seconds between two such looks, whatever the number of short queues.
LOOK, LOOK_AGAIN = 500, 0.025

#: After looks that found nothing: wait up to so many times as long as the last one took, but no more than so many seconds.
LOOK_SHARE, LOOK_LATEST = 20, 0.2

#: Seconds to leave Redis alone after it refused a settlement or a claim.
REST = 1.0

#: What Redis can refuse.
CLAIM, SETTLE, WAKE, WAIT = "claim from queue {}", "settle on queue {}", "wake queue {}", "wait for work"


class Wanted(NamedTuple):
    """What one claim asks for.

    Attributes:
        keys: The queue.
        limit: Messages at most.
        rooms: How many of them can begin, in which pool.
        look: Messages to look at, if more than the limit.
        asked: When the queue was asked before, by the loop's clock.
        at: When it is asked now.
    """

    keys: QueueKeys
    limit: int
    rooms: list[Room]
    look: int
    asked: float
    at: float


class Short(NamedTuple):
    """The pools that have no room for the messages of a queue.

    Attributes:
        pools: The pools of the first messages, by their numbers.
        deep: Those of messages behind these that the last look found. Only a claim that looks as far finds these messages.
        at_once: Whether it takes room where they begin at once: they have limits, or were there when a worker died.
        passed: Messages that were taken since it was looked into.
    """

    pools: frozenset[int]
    deep: frozenset[int]
    at_once: bool
    passed: int

    def limit(self, rooms: Sequence[Room], *, deep: bool) -> int:
        """Return how many of the first messages, or of those behind them, there is room for at most."""
        return max((rooms[pool].free - self.at_once * rooms[pool].ahead for pool in (self.deep if deep else self.pools)), default=0)


def refused(queues: Sequence[QueueKeys], troubles: Troubles) -> list[str]:
    """Return the queues that Redis does not let a worker claim from, settle on or wait for at present."""
    if WAIT in troubles:
        return [keys.queue for keys in queues]
    return [keys.queue for keys in queues if any(what.format(keys.queue) in troubles for what in (CLAIM, SETTLE))]


class Consumer:
    """The worker's side of the queues.

    Args:
        connector: For the trips. Waits out any outage.
        blocking: For the blocking read. Waits out any outage.
        queues: In the order in which they are served.
        worker: The name that leases are written to.
        rooms: Knows how many messages can begin.
        lease: Microseconds.
        max_crashes: A message whose lease ended so often by expiry is dead.
        in_burst: It is over when the queues are empty: then it does not wait for more.
        has_room: Whether what has to run apart could begin now.
        start: Runs a delivery; its end comes back by `ended`.
        observers: Told what comes, and what became of it.
        troubles: Told what Redis refuses.
        log: The worker's logger.
        loop: Where it works.
    """

    def __init__(
        self,
        connector: AsyncConnector,
        blocking: AsyncConnector,
        queues: Sequence[QueueKeys],
        *,
        worker: str,
        rooms: Rooms,
        lease: int,
        max_crashes: int,
        in_burst: bool,
        has_room: Callable[[], bool],
        start: Callable[[Held], None],
        observers: Observers,
        troubles: Troubles,
        log: logging.Logger,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connector = connector
        self._blocking = blocking
        self._queues = queues
        self._worker = worker
        self._rooms = rooms
        self._lease = lease
        self._max_crashes = max_crashes
        self._in_burst = in_burst
        self._looking = False
        self._has_room = has_room
        self._for_room: Command[Claimed] | None = None
        self._start = start
        self._observers = observers
        self._troubles = troubles
        self._log = log
        self._loop = loop
        self._settler = Settler()
        self._held: set[Held] = set()
        self._claims = 0
        self._trips = 0
        self._empty: dict[QueueKeys, bool] = dict.fromkeys(queues, False)
        self._asked: dict[QueueKeys, float] = dict.fromkeys(queues, 0.0)
        self._in_order = 0
        self._timers: dict[QueueKeys, asyncio.TimerHandle] = {}
        #: The one that was looked into last comes last.
        self._short: dict[QueueKeys, Short] = {}
        #: The short queue that is looked into with the next claim; None: not yet time for that.
        self._looks_into: QueueKeys | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._look_pause = LOOK_AGAIN
        self._blocks_on: list[QueueKeys] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = False
        self._scheduled = False
        self._resting: set[QueueKeys] = set()
        self._stopping = False
        #: Set whenever nothing is held, unsent or on its way; `stop` first, or it only means "for now".
        self.idle = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether it claims no more."""
        return self._stopping

    @property
    def exhausted(self) -> bool:
        """Whether the queues were empty when last looked at, and nothing is held."""
        return all(self._empty.values()) and self.idle.is_set()

    def held(self) -> list[Held]:
        """What is held now. Safe to call from another thread: one step of the interpreter."""
        return list(self._held)

    def ended(self, held: Held, settlement: Settlement, run_time: int) -> None:
        """A delivery ended; its settlement leaves with the next trip, at the latest in the next turn of the loop."""
        held.settled = True
        self._settler.add(held, settlement, run_time)
        self._schedule()

    def acknowledge_first(self, held: Held, settlement: Settlement, then: Callable[[], None]) -> None:
        """Settle, and run it when Redis has said that it was ours to settle: at most once."""
        held.then = then
        self.ended(held, settlement, 0)

    def settle_running(self, held: Held, settlement: Settlement) -> None:
        """Settle one whose handler does not stop: its slot is taken until `leave`, also when Redis says that it was not ours."""
        self.acknowledge_first(held, settlement, _runs_on)

    def leave(self, held: Held) -> None:
        """What was settled before its end has ended: its slot is free."""
        self._forget(held)
        self._schedule()

    def _forget(self, held: Held) -> None:
        self._held.discard(held)
        self._rooms.drop((held,))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Start what can be started: trips while there is something to carry, else the wait for work."""
        self._scheduled = False
        while self._trips < MAX_TRIPS:
            batches = self._settler.take(self._resting) if self._settler else []
            wanted = None
            if not self._stopping and not all(self._empty.values()):
                leaving = [ended.held for batch in batches for ended in batch.ended if ended.held.then is None]
                wanted = self._next_claim(self._rooms.offer(len(self._held), leaving))
            if not batches and wanted is None:
                break
            self._trips += 1
            if wanted:
                self._reserve(wanted)
            self._spawn(self._trip(batches, wanted))
        if self._trips or self._held or self._settler or self._waiting:
            self.idle.clear()
        else:
            self.idle.set()
        if self._waiting and self._in_burst and not self._looking and not self._trips and not self._held and not self._settler:
            # All that it knew of has ended: what is left is to look once more, and not to wait for a block to end.
            self._looking = True
            self._spawn(self._nudge(self._blocks_on[0]))
        if not self._waiting and not self._claims and not self._stopping:
            self._block()

    def _block(self) -> None:
        """Wait for work, if no queue has any, and if there is room for what may come."""
        queues = [keys for keys in self._queues if self._empty[keys] and keys not in self._resting]
        if not queues:
            return
        rooms = self._rooms.offer(len(self._held))
        if self._first(rooms) is not None or not any(room.free for room in rooms):
            return
        self._waiting, self._blocks_on = True, queues
        self._spawn(self._wait_for_work(queues, rooms))

    def _limit(self, keys: QueueKeys, rooms: Sequence[Room]) -> int:
        """How many messages to ask a queue for. In a short one, the first are known to be of the pools that it is short of."""
        short = self._short.get(keys)
        if short is None or keys is self._looks_into:
            return min(max(room.free for room in rooms), MAX_BATCH)
        return min(short.limit(rooms, deep=False) or short.limit(rooms, deep=True), MAX_BATCH)

    def _first(self, rooms: Sequence[Room]) -> QueueKeys | None:
        """The first queue that may have something that there is room for; None when there is none."""
        for keys in self._queues:
            if not self._empty[keys] and keys not in self._resting and self._limit(keys, rooms):
                return keys
        return None

    def _next_claim(self, rooms: list[Room]) -> Wanted | None:
        """Which queue to claim from, and how many."""
        first = self._first(rooms)
        if first is None:
            return None
        return self._wanted(first if len(self._queues) == 1 else self._fairly(first, rooms), rooms)

    def _wanted(self, keys: QueueKeys, rooms: list[Room]) -> Wanted:
        look = 0
        limit = self._limit(keys, rooms)
        if keys is self._looks_into:
            self._looks_into = None
            self._short[keys] = self._short.pop(keys)
            self._plan_look()
            look = LOOK
        elif (short := self._short.get(keys)) and not short.limit(rooms, deep=False):
            look = LOOK
        asked, at = self._asked[keys], self._loop.time()
        self._asked[keys] = at
        return Wanted(keys, limit, rooms, look, asked, at)

    def _reserve(self, wanted: Wanted) -> None:
        self._claims += 1
        self._rooms.reserve(wanted.rooms, wanted.limit)

    def _release(self, wanted: Wanted) -> None:
        self._claims -= 1
        self._rooms.release(wanted.rooms, wanted.limit)

    def _fairly(self, first: QueueKeys, rooms: Sequence[Room]) -> QueueKeys:
        """The first in order; at times another, that would starve behind it, or be thought empty for as long as it is full."""
        now = self._loop.time()
        # A short queue does not wait for its turn, but for room.
        able = (
            keys for keys in self._queues if keys not in self._resting and (keys not in self._short or self._limit(keys, rooms))
        )
        waits = min(able, key=self._asked.__getitem__) if self._in_order >= IN_ORDER else first
        if waits is not first and now - self._asked[waits] > BLOCK_SECONDS:
            self._in_order = 0
            first = waits
        else:
            self._in_order += 1
        return first

    def _claim(self, wanted: Wanted) -> Command[Claimed]:
        # One claim at a time may bring what has to run apart: nothing is leased that would only wait.
        apart = int(self._for_room is None and self._has_room())
        rooms, limit = wanted.rooms, wanted.limit
        # With one pool and nothing ahead, the limit says it all.
        says_more = (len(rooms) > 1 and min(room.free for room in rooms) < limit) or any(room.ahead for room in rooms)
        command = claim(
            wanted.keys,
            worker=self._worker,
            limit=limit,
            lease=self._lease,
            max_crashes=self._max_crashes,
            apart=apart,
            rooms=rooms if says_more else (),
            look=wanted.look,
        )
        if apart:
            self._for_room = command
        return command

    async def _trip(self, batches: list[Batch], wanted: Wanted | None) -> None:
        commands: list[Command[Any]] = [batch.command for batch in batches]
        if wanted:
            commands.append(self._claim(wanted))
        try:
            results = await self._connector.execute_many(commands)
        except Exception as error:  # noqa: BLE001 - a worker never ends for its bookkeeping: logged, and tried again
            self._log.exception("Trip to Redis failed")
            results = [BrokerError(f"trip failed: {type(error).__name__}")] * len(commands)
        finally:
            self._trips -= 1
            if wanted:
                self._release(wanted)
        try:
            for batch, result in zip(batches, results, strict=False):
                self._settled(batch, result)
            if wanted:
                self._claimed(wanted, commands[-1], results[-1])
        finally:
            self.pump()

    async def _wait_for_work(self, queues: Sequence[QueueKeys], rooms: list[Room]) -> None:
        # With one queue the claim is written behind the blocking read; with several, which one woke is not known yet.
        alone = self._wanted(queues[0], rooms) if len(self._queues) == 1 else None
        commands: list[Command[Any]] = [wait(queues, BLOCK_SECONDS)]
        if alone:
            commands.append(self._claim(alone))
            self._reserve(alone)
        due = queues
        try:
            results = await self._blocking.execute_many(commands)
            if results[0] is None and not alone and not self._looking:
                due = await self._due_of(queues)
        except Exception as error:  # noqa: BLE001 - as in a trip
            self._log.exception("Waiting for work failed")
            results = [BrokerError(f"wait failed: {type(error).__name__}")] * len(commands)
        finally:
            self._waiting, self._blocks_on = False, []
            if alone:
                self._release(alone)
        woken = results[0]
        if self._looking and isinstance(woken, str):
            woken = None  # all are to be looked at
        self._looking = False
        try:
            if isinstance(woken, BrokerError):
                self._refused(queues, WAIT, woken)
            elif self._troubles:
                self._troubles.over(WAIT)
            if alone:
                self._claimed(alone, commands[1], results[1])
                return
            for keys in due:
                if not isinstance(woken, str) or woken == keys.wake:
                    self._empty[keys] = False
        finally:
            self.pump()

    async def _due_of(self, queues: Sequence[QueueKeys]) -> list[QueueKeys]:
        """Look at all of them, as a hint is only a hint: one script for many queues, where a claim each would cost Redis more."""
        several = [queues[at : at + MAX_LOOKS] for at in range(0, len(queues), MAX_LOOKS)]
        due: list[QueueKeys] = []
        for some, result in zip(several, await self._blocking.execute_many([look(some) for some in several]), strict=True):
            if isinstance(result, BrokerError):
                due += some  # their claims say what is wrong
                continue
            for keys, found in zip(some, result, strict=True):
                if found.next_due == 0:
                    due.append(keys)
                else:
                    self._set_timer(keys, found.next_due)
        return due

    def _claimed(self, wanted: Wanted, command: Command[Claimed], result: Claimed | BrokerError) -> None:
        if command is self._for_room:
            self._for_room = None
        self._start_all(wanted, result)

    def _start_all(self, wanted: Wanted, result: Claimed | BrokerError) -> None:
        keys = wanted.keys
        if isinstance(result, BrokerError):
            self._refused([keys], CLAIM.format(keys.queue), result)
            return
        if self._troubles:
            self._troubles.over(CLAIM.format(keys.queue))
        deliveries, next_due, short, dead, set_back = result
        if deliveries and self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("Claimed messages of queue %s: %d", keys.queue, len(deliveries))
        before = self._short.get(keys) if wanted.look else None
        if short or keys in self._short:
            self._note_shortage(wanted, short, len(deliveries))
        self._set_empty(keys, len(deliveries) < wanted.limit and next_due != 0 and not short)
        self._set_timer(keys, next_due)
        if short and not deliveries:
            # It was not served, as others had the room. So it still has its turn before it.
            self._asked[keys], self._in_order = wanted.asked, IN_ORDER
        if self._observers.watch_claims:
            self._observers.claimed(keys, deliveries)
        came = [Held(keys, delivery) for delivery in deliveries]
        self._held.update(came)
        for held in came:
            if self._stopping:
                self.ended(held, given_back(held.delivery), 0)
            else:
                self._start(held)
        self._rooms.take(came)
        if wanted.look:
            found_others = before is not None and any(held.pool not in before.pools for held in came)
            self._looked(self._loop.time() - wanted.at, found_others=found_others)
        # When all have begun: a filter of the app's own logging may raise.
        for each in dead:
            self._log.warning("%s", dead_letter(keys.queue, each, each.meta.reason, each.meta.text))
            if self._observers.watch_ends:
                self._observers.buried(keys, each)
        if set_back:
            self._log.warning("Queue %s: %s", keys.queue, set_back)

    def _looked(self, took: float, *, found_others: bool) -> None:
        """Say when to look again: at once, when it found messages of other pools. More of these are likely to be there."""
        longest = max(LOOK_AGAIN, min(LOOK_SHARE * took, LOOK_LATEST))
        self._look_pause = took if found_others else min(2 * self._look_pause, longest)
        if found_others and self._look_timer:
            self._look_timer.cancel()
            self._look_timer = None
            self._plan_look()

    def _note_shortage(self, wanted: Wanted, pools: frozenset[int], count: int) -> None:
        """Remember of which pools a queue is short, and see to it that it is looked into."""
        keys, is_full, before = wanted.keys, count >= wanted.limit, self._short.get(wanted.keys)
        passed = count if wanted.look or not before else before.passed + count
        if pools:
            first = (wanted.look and before and before.pools & pools) or pools
            deep = pools if wanted.look or not before else before.deep
            self._short[keys] = Short(first, deep - first, any(count < wanted.rooms[pool].free for pool in pools), passed)
            if wanted.look and is_full and self._looks_into is None and keys not in self._resting:
                self._looks_into = keys  # there may be more of the same behind what it has found
        elif before and is_full and not wanted.look:
            # It only asked for what the queue is short of, and got that.
            self._short[keys] = before._replace(passed=passed)
        elif before:
            del self._short[keys]
            if self._looks_into is keys:
                self._looks_into = None
        self._plan_look()

    def _plan_look(self) -> None:
        able = self._short.keys() - self._resting if self._resting else self._short
        if able and self._looks_into is None and self._look_timer is None and not self._stopping:
            self._look_timer = self._loop.call_later(self._look_pause, self._look)

    def _look(self) -> None:
        self._look_timer = None
        for keys, short in list(self._short.items()):
            if keys in self._resting:
                continue
            if short.passed < LOOK // 2:
                self._looks_into = keys
                self.pump()
                return
            # It moves along so quickly that there is no need to.
            self._short[keys] = short._replace(passed=0)
        self._plan_look()

    def _set_empty(self, keys: QueueKeys, is_empty: bool) -> None:
        self._empty[keys] = is_empty
        if is_empty and self._waiting and keys not in self._blocks_on:
            # The block would not hear of what comes here.
            self._spawn(self._nudge(self._blocks_on[0]))

    def _settled(self, batch: Batch, result: list[str] | BrokerError) -> None:
        if isinstance(result, BrokerError):
            # The handlers ran: this is never their failure. Kept and sent again; at worst the leases expire.
            self._settler.put_back(batch)
            self._refused([batch.keys], SETTLE.format(batch.keys.queue), result)
            return
        if self._troubles:
            self._troubles.over(SETTLE.format(batch.keys.queue))
        over: list[Held] = []
        dead: list[tuple[Held, Settlement]] = []
        for held, end, _ in batch.ended:
            if end.op == "dead" and end.id not in result:
                dead.append((held, end))
            then = held.then
            if then and not held.over and (then is _runs_on or end.id not in result):
                held.then, held.leased = None, False
                then()
            else:
                over.append(held)
        self._held.difference_update(over)
        self._rooms.drop(over)
        # When their slots are free: a filter of the app's own logging may raise.
        for held, end in dead:
            self._log.warning("%s", dead_letter(batch.keys.queue, held.delivery, end.reason, str(end.text), held.task))
        if self._observers.watch_ends:
            self._observers.settled(batch.ended, result)
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("Settled messages of queue %s: %d, stale: %d", batch.keys.queue, len(batch.ended), len(result))

    def _refused(self, queues: Sequence[QueueKeys], what: str, error: BrokerError) -> None:
        self._troubles.met(what, error, logging.ERROR)
        for keys in queues:
            self.rest(keys)

    def rest(self, keys: QueueKeys) -> None:
        """Leave a queue alone for a while: claim nothing from it, settle nothing there."""
        if keys not in self._resting:
            self._resting.add(keys)
            self._loop.call_later(REST, self._go_on, keys)
            if self._looks_into is keys:
                self._looks_into = None
            self._plan_look()

    def _go_on(self, keys: QueueKeys) -> None:
        self._resting.discard(keys)
        self._plan_look()
        self.pump()

    def _set_timer(self, keys: QueueKeys, next_due: float | None) -> None:
        if timer := self._timers.pop(keys, None):
            timer.cancel()
        # Whatever is due later than a block lasts is seen by the claim that follows it.
        if next_due and next_due <= BLOCK_SECONDS:
            self._timers[keys] = self._loop.call_later(next_due, self._due, keys)

    def _due(self, keys: QueueKeys) -> None:
        self._timers.pop(keys, None)
        if self._waiting and keys in self._blocks_on:
            self._spawn(self._nudge(keys))
        else:
            self._empty[keys] = False
            self.pump()

    async def _nudge(self, keys: QueueKeys) -> None:
        """End the blocking read. Whoever takes the hint claims what is due."""
        try:
            await self._connector.execute(wake(keys))
        except BrokerError as error:
            # It is looked at when the block is over, all the same.
            self._troubles.met(WAKE.format(keys.queue), error)
        else:
            self._troubles.over(WAKE.format(keys.queue))

    def stop(self) -> None:
        """Claim no more. What a claim on its way brings is given back."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._look_timer:
            self._look_timer.cancel()
        if self._waiting:
            self._spawn(self._nudge(self._blocks_on[0]))
        self.pump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def abort(self) -> None:
        """Drop what is on its way: the leases that nobody settled expire."""
        await end_tasks(self._tasks)


def _runs_on() -> None:
    """Start nothing: the handler of what was settled runs, and keeps its slot."""
