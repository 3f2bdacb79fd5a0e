"""Claim what the consumers of one connection may have, and wait for more: with an event loop, and without one.

Claims bring a batch, within each channel's prefetch count, which waits here until it is handed out. Nothing is polled:
while the queues are empty, one connection blocks on their wake keys and another on the streams of fanout exchanges. A
hint is only a hint, and a lease that expires gives none. So once a second one script looks at all queues.
"""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kombu.utils.scheduling import cycle_by_name

from redisq.backoff import Backoff
from redisq.broker.blocking import BlockingCall, readable
from redisq.broker.commands import MAX_BATCH, MAX_LOOKS, Claimed, Command, Look, claim, look, wait
from redisq.broker.connection import BLOCK_SECONDS, Server
from redisq.broker.connector import Connector
from redisq.broker.forks import after_fork
from redisq.broker.keys import QueueKeys
from redisq.broker.leases import renew
from redisq.codec.summary import dead_letter
from redisq.errors import BrokerError, BrokerUnavailable
from redisq.kombu.fanout import Fanout
from redisq.kombu.held import Held
from redisq.kombu.hub import TURN, Place
from redisq.kombu.keeper import Keeper
from redisq.kombu.names import Names
from redisq.kombu.options import Options
from redisq.kombu.outage import Outage, OutageTroubles

__all__ = ["Consumer", "Subscription"]

#: Seconds that an answer of a blocking call may be late before its connection is taken for dead.
_LATE = 1.0
#: A claim that took so many seconds met a dead connection, or a server that hung.
_SLOW = 1.0
#: Seconds that acknowledgements may gather before a queue that has more is claimed from again, while the channel still has
#: more than half of what it may hold: else each acknowledgement would cost a trip.
_GATHER = 0.002
#: A program that takes no message now says nowhere when it does again: Celery with `worker_disable_prefetch`, while all slots are
#: taken; without an event loop, a thread or a greenlet that acknowledges while another waits here. So it is asked, after this part
#: of the time that it has refused for, and at least so often, in seconds.
_ASK_AFTER, _ASK_SOONEST, _ASK_LATEST = 0.1, 0.001, 0.05
#: How often messages that are due are put to their places before a claim by priority. Each time takes a hundred of a queue.
_MOVES = 3
#: What does not work, for the log.
_CLAIM = "claim messages"


#: What tells the consumers of a connection apart: queue, channel, tag.
Key = tuple[str, int, str]


class Subscription(NamedTuple):
    """One consumer of one queue.

    Attributes:
        channel: Whose prefetch count it takes from, and who hands its messages out.
        queue: kombu's name.
        tag: The consumer's tag, of which each channel has its own.
    """

    channel: Any
    queue: str
    tag: str

    @property
    def key(self) -> Key:
        """By queue first: that is what the strategy `sorted` sorts by."""
        return self.queue, id(self.channel), self.tag


class Consumer:
    """The consuming side of one connection.

    Args:
        server: For the blocking connections.
        connector: For claims. It gives up soon: the next round is another try.
        options: The transport's options.
        names: From kombu's names to keys.
        keeper: Extends the leases of what was claimed.
        fanout: The queues of fanout exchanges.
        log: Where dead letters and an outage are told, and that the server's clock was set back.
        outage: Whether Redis is away, which the keeper may know too.
        back: Called when Redis can be reached again.
        give_up: Raise when Redis is away, so that kombu goes on to the next URL; else wait for it.
    """

    def __init__(
        self,
        server: Server,
        connector: Connector,
        options: Options,
        names: Names,
        keeper: Keeper,
        fanout: Fanout,
        log: logging.Logger,
        outage: Outage,
        *,
        back: Callable[[], None],
        give_up: bool,
    ) -> None:
        self._connector = connector
        self._options = options
        self._names = names
        self._keeper = keeper
        self._fanout = fanout
        self._log = log
        self._back = back
        self._give_up = give_up
        self._worker = f"kombu-{os.getpid()}@{socket.gethostname()}"
        self._subscriptions: dict[Key, Subscription] = {}
        self._order: Any = cycle_by_name(options.queue_order_strategy)()
        self._ready: deque[tuple[Subscription, Held]] = deque()
        self._heard: deque[tuple[Subscription, bytes]] = deque()
        self._handed_out = 0
        self._gather_till = 0.0
        self._gathering = False
        # Queue -> when to look at it again, monotonic; absent: now.
        self._look_at: dict[str, float] = {}
        self._place = place = Place(self._turn, self.on_readable)
        self._wake: BlockingCall[Any] = server.blocking("kombu-wake", BLOCK_SECONDS, opened=place.opened, closing=place.closing)
        self._ears: BlockingCall[Any] = server.blocking("kombu-fanout", BLOCK_SECONDS, opened=place.opened, closing=place.closing)
        # Monotonic seconds: when all queues are looked at again.
        self._look_all_at = 0.0
        # Since when a channel's program has refused messages; None: none does.
        self._refused_since: float | None = None
        self._asked: dict[BlockingCall[Any], float] = {}
        self._listening: tuple[str, ...] = ()
        self._failures = 0
        self._troubles = OutageTroubles(log, outage)
        self._away_till = 0.0
        self._backoff = Backoff(first=0.05, cap=1.0)
        after_fork(self._forget)

    def _forget(self) -> None:
        # What was claimed is the parent's, and so is the loop.
        self._ready.clear()
        self._heard.clear()
        self._place.forget()

    # Who consumes

    def subscribe(self, subscription: Subscription) -> None:
        """A channel consumes from a queue."""
        self._subscriptions[subscription.key] = subscription
        self._reorder()
        self._look_at.pop(subscription.queue, None)

    def cancel(self, subscription: Subscription) -> None:
        """It does not any more. What was claimed for it, and not handed out, goes back for free."""
        if self._subscriptions.pop(subscription.key, None) is None:
            return
        self._reorder()
        kept: deque[tuple[Subscription, Held]] = deque()
        for ready in self._ready:
            if ready[0] == subscription:
                self._keeper.end(ready[1], "release")
            else:
                kept.append(ready)
        self._ready = kept
        self._heard = deque(heard for heard in self._heard if heard[0] != subscription)

    def serves(self, queue: str) -> bool:
        """Whether somebody consumes from a queue here."""
        return any(subscription.queue == queue for subscription in list(self._subscriptions.values()))

    def queues(self) -> list[str]:
        """The queues that are consumed. Safe to call from another thread."""
        return [subscription.queue for subscription in list(self._subscriptions.values())]

    def _reorder(self) -> None:
        self._order.update(list(self._subscriptions))

    def forget(self, queue: str) -> None:
        """The queue is deleted: so is what was claimed of it."""
        self._ready = deque(ready for ready in self._ready if ready[0].queue != queue)
        self._look_at.pop(queue, None)

    # Claims

    def _credit(self, channel: Any) -> int:
        waiting = sum(1 for subscription, _ in self._ready if subscription.channel is channel)
        credit: int = channel.qos.credit(self._options.batch + waiting) - waiting
        return max(credit, 0)

    def _wanting(self) -> list[tuple[Subscription, int]]:
        """Who may have messages of a queue, and how many."""
        wanting = []
        left: dict[int, int] = {}
        now = time.monotonic()
        gather = now < self._gather_till
        self._gathering = refused = False
        for key in self._order.consume(len(self._subscriptions)):
            subscription = self._subscriptions.get(key)
            # Another thread may have cancelled it just now.
            if subscription is None or subscription.queue in self._fanout:
                continue
            channel = subscription.channel
            if id(channel) not in left:
                credit = left[id(channel)] = self._credit(channel)
                if gather and channel.qos.holds_most(credit):
                    self._gathering = True
                    left[id(channel)] = 0
                refused = refused or (credit == 0 and (channel.qos.asks or not self._place.has_loop))
            if left[id(channel)] > 0:
                wanting.append((subscription, left[id(channel)]))
        self._refused_since = (self._refused_since or now) if refused else None
        return wanting

    def _claim(self, wanting: Sequence[tuple[Subscription, int]]) -> None:
        self._look(wanting)
        now = time.monotonic()
        due = [pair for pair in wanting if self._look_at.get(pair[0].queue, 0) <= now]
        queues = sorted({subscription.queue for subscription, _ in wanting})
        if not due or not self._options.priority_across_queues or len(queues) == 1:
            self._claim_from(due, {})
            return
        ready = len(self._ready)
        for most in self._by_priority(queues):
            self._claim_from([pair for pair in wanting if pair[0].queue in most], most)
            # Nothing comes of messages that expired, or wait for a limit: then it is the next priority's turn.
            if len(self._ready) > ready:
                return

    def _claim_from(self, due: Sequence[tuple[Subscription, int]], most: Mapping[str, int]) -> None:
        """Claim from these queues, `most` messages from each that it names."""
        # A queue that was looked at is left alone until something is known to be there.
        while due:
            if self._options.queue_order_strategy == "round_robin":
                share = max(len(due), 1)
                some, due = due, []
            else:
                share, some, due = 1, due[:1], due[1:]
            calls: list[Command[Claimed]] = []
            asked: list[tuple[Subscription, int]] = []
            given: dict[int, int] = {}
            for subscription, _ in some:
                channel = subscription.channel
                left = self._credit(channel) - given.get(id(channel), 0)
                credit = min(left, -(-self._credit(channel) // share))
                if credit > 0:
                    limit = min(credit, self._options.batch, MAX_BATCH, most.get(subscription.queue, MAX_BATCH))
                    given[id(channel)] = given.get(id(channel), 0) + limit
                    asked.append((subscription, limit))
                    calls.append(self._call(self._names.queue(subscription.queue), limit))
            if not calls:
                return
            began = time.monotonic()
            for (subscription, limit), result in zip(asked, self._carried(calls), strict=True):
                self._claimed(subscription, limit, result, began)

    def _look(self, wanting: Sequence[tuple[Subscription, int]]) -> None:
        """Once a second, find out which queues have something to do that nobody gave a hint of."""
        now = time.monotonic()
        if not wanting or now < self._look_all_at:
            return
        self._look_all_at = now + BLOCK_SECONDS
        idle = sorted({subscription.queue for subscription, _ in wanting if self._look_at.get(subscription.queue, 0) > now})
        if len(idle) == 1:
            # Its claim finds out, too.
            self._look_at.pop(idle[0], None)
            return
        if idle:
            self._look_at_many(idle, 0)

    def _look_at_many(self, queues: Sequence[str], step: int) -> dict[str, Look]:
        now = time.monotonic()
        several = [queues[at : at + MAX_LOOKS] for at in range(0, len(queues), MAX_LOOKS)]
        calls = [look([self._names.queue(queue) for queue in some], step=step) for some in several]
        looks: dict[str, Look] = {}
        for some, result in zip(several, self._carried(calls), strict=True):
            looks |= zip(some, result, strict=True)
        for queue, found in looks.items():
            self._look_at[queue] = math.inf if found.next_due is None else now + found.next_due
        return looks

    def _by_priority(self, queues: Sequence[str]) -> list[dict[str, int]]:
        """Return queues and how many messages to claim from each: those whose first messages have the highest priority first."""
        looks: dict[str, Look] = {}
        for _ in range(_MOVES):
            looks = self._look_at_many(queues, self._options.step_us)
            # What is due, or lost its lease, has a priority, too: a claim of nothing puts it to its place.
            hidden = [queue for queue, found in looks.items() if found.next_due == 0 and found.band is None]
            if not hidden:
                break
            self._carried([self._call(self._names.queue(queue), 0) for queue in hidden])
        groups: dict[int, dict[str, int]] = {}
        for queue, found in looks.items():
            if found.band is not None:
                groups.setdefault(found.band, {})[queue] = found.many
        return [groups[band] for band in sorted(groups)]

    def _carried(self, calls: Sequence[Command[Any]]) -> list[Any]:
        results = self._keeper.carry(calls, self._connector)
        for result in results:
            if isinstance(result, BrokerError):
                raise result
        return results

    def _call(self, keys: QueueKeys, limit: int) -> Command[Claimed]:
        options = self._options
        return claim(keys, worker=self._worker, limit=limit, lease=options.lease_us, max_crashes=options.most_deliveries)

    def _claimed(self, subscription: Subscription, limit: int, result: Claimed, began: float) -> None:
        held = self._hold(subscription.queue, result, began)
        if held:
            self._ready.extend((subscription, each) for each in held)
            self._order.rotate(subscription.key)
        if len(result.deliveries) < limit:
            rest = math.inf if result.next_due is None else result.next_due
            self._look_at[subscription.queue] = time.monotonic() + rest
        else:
            self._look_at.pop(subscription.queue, None)
            self._gather_till = time.monotonic() + _GATHER

    def _hold(self, queue: str, result: Claimed, began: float) -> list[Held]:
        """Return what was claimed by a call that began then, and is still ours: from now on it is kept."""
        keys = self._names.queue(queue)
        self._say_dead(queue, result)
        self._say_of_clock(keys, result)
        held = [Held(queue, keys, delivery) for delivery in result.deliveries]
        # The answer came late, or a greenlet computed before it could be read: others may have the messages by now.
        while held and time.monotonic() - began > self._options.lease / 2:
            began = time.monotonic()
            lost = {
                each.tag
                for each, verdict in renew(self._connector, held, self._options.lease_us, self._troubles)
                if verdict == "lost"
            }
            held = [each for each in held if each.tag not in lost]
        if held:
            self._keeper.hold(held)
        return held

    def _say_of_clock(self, keys: QueueKeys, result: Claimed) -> None:
        if result.set_back:
            self._log.warning("Queue %s: %s", keys.queue, result.set_back)

    def get(self, queue: str) -> Held | None:
        """Claim one message, for `basic_get`.

        Raises:
            BrokerError: Redis refused, or is away.
        """
        while True:
            began = time.monotonic()
            answer = self._connector.execute(self._call(self._names.queue(queue), 1))
            for held in self._hold(queue, answer, began):
                return held
            # What was first had expired or is lost, and more is there.
            if not answer.deliveries and answer.next_due != 0:
                return None

    def _say_dead(self, queue: str, claimed: Claimed) -> None:
        for each in claimed.dead:
            self._log.warning("%s", dead_letter(queue, each, each.meta.reason, each.meta.text))

    # Blocking calls

    def _arm(self, wanting: Sequence[tuple[Subscription, int]]) -> None:
        if not self._wake.pending and wanting and not self._ready:
            queues = sorted({subscription.queue for subscription, _ in wanting})
            self._ask(self._wake, wait([self._names.queue(queue) for queue in queues], BLOCK_SECONDS))
        self._listen()

    def _listen(self) -> None:
        queues = self._fanout_queues()
        streams = self._fanout.streams(queues)
        if self._ears.pending and streams != self._listening:
            self._ears.disconnect()
        if not self._ears.pending and streams:
            command = self._fanout.listen(queues, BLOCK_SECONDS * 1000)
            if command:
                self._listening = streams
                self._ask(self._ears, command)

    def _fanout_queues(self) -> list[str]:
        return sorted({each.queue for each in list(self._subscriptions.values()) if each.queue in self._fanout})

    def _ask(self, call: BlockingCall[Any], command: Command[Any]) -> None:
        self._asked[call] = time.monotonic()
        call.send(command)

    def _answered(self, call: BlockingCall[Any]) -> None:
        if call is self._wake:
            woken = call.read()
            for subscription in list(self._subscriptions.values()):
                if self._names.queue(subscription.queue).wake == woken:
                    self._look_at.pop(subscription.queue, None)
        else:
            heard = call.read()
            by_queue: dict[str, list[Subscription]] = {}
            for subscription in list(self._subscriptions.values()):
                by_queue.setdefault(subscription.queue, []).append(subscription)
            for queue, body in self._fanout.sort(list(by_queue), heard):
                self._heard.append((by_queue[queue][0], body))

    def _check_overdue(self) -> None:
        """Drop connections whose answer is overdue. Read an answer that is there and that the loop did not report."""
        limit = time.monotonic() - BLOCK_SECONDS - _LATE
        for call in (self._wake, self._ears):
            if not call.pending or self._asked[call] >= limit:
                continue
            if call.readable(0):
                self._place.opened(call.fileno())
                self._answered(call)
            else:
                call.disconnect()

    # Outages

    def _round(self) -> list[tuple[Subscription, int]]:
        """Claim, and block if there is nothing. Returns who may have messages."""
        wanting: list[tuple[Subscription, int]] = []

        def look() -> None:
            self._check_overdue()
            wanting.extend(self._wanting())
            began = time.monotonic()
            self._claim(wanting)
            if time.monotonic() - began > _SLOW:
                # The others of the same server are as dead, most likely; they need not each find out.
                self._wake.disconnect()
                self._ears.disconnect()
            self._arm(wanting)

        if time.monotonic() < self._away_till or not self._attempt(look):
            return []
        if self._failures:
            self._failures = 0
            self._back()
        if self._troubles:
            self._troubles.over(_CLAIM)
        return wanting

    def _attempt(self, step: Callable[[], None]) -> bool:
        """Whether Redis was there for it."""
        try:
            step()
        except BrokerUnavailable as error:
            if self._give_up:
                raise
            self._failures += 1
            self._away_till = time.monotonic() + self._backoff.delay(self._failures, random.random)
            self._look_at.clear()
            # Connections that were cut and can be had again at once are no outage: each of the two may fail once.
            if self._failures > 2:
                self._troubles.met(_CLAIM, error)
            return False
        return True

    def _read(self, call: BlockingCall[Any]) -> None:
        self._attempt(lambda: self._answered(call))

    # Without an event loop

    def drain(self, timeout: float | None) -> bool:
        """Hand one message out; False: there was none in that time (None: wait for ever)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # A batch of messages may take long to hand out: fanout, so remote control, goes before.
        if self._ready and not self._heard and self._ears.pending and self._ears.readable(0):
            self._read(self._ears)
            self._attempt(self._listen)
        while True:
            if self._hand_out():
                return True
            wanting = self._round()
            if self._hand_out():
                return True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                # Something may have come while it was claimed.
                self._wait(0)
                return self._hand_out()
            self._wait(min(self._sleep(wanting), TURN, float("inf") if deadline is None else deadline - now))

    def _sleep(self, wanting: Sequence[tuple[Subscription, int]]) -> float:
        """Seconds until there is something to do without being woken."""
        now = time.monotonic()
        if now < self._away_till:
            return self._away_till - now
        looks = [self._look_at.get(subscription.queue, now) - now for subscription, _ in wanting]
        if wanting:
            looks.append(self._look_all_at - now)
        if self._gathering:
            looks.append(self._gather_till - now)
        if self._refused_since is not None:
            looks.append(min(max((now - self._refused_since) * _ASK_AFTER, _ASK_SOONEST), _ASK_LATEST))
        return max(min([*looks, float(BLOCK_SECONDS)]), 0.0)

    def _wait(self, seconds: float) -> None:
        calls = [call for call in (self._wake, self._ears) if call.pending]
        if not calls:
            time.sleep(min(seconds, BLOCK_SECONDS))
            return
        found = readable(calls, seconds)
        for call in calls:
            if call.fileno() in found:
                self._read(call)

    def _hand_out(self) -> bool:
        """Hand out one message, if one is here."""
        while self._heard:
            subscription, body = self._heard.popleft()
            if subscription.channel.hand_out_broadcast(subscription, body):
                self._handed_out += 1
                return True
        while self._ready:
            subscription, held = self._ready.popleft()
            if subscription.channel.hand_out(subscription, held):
                self._handed_out += 1
                return True
        return False

    # With an event loop

    def register(self, loop: Any) -> None:
        """Work in kombu's event loop from now on."""
        self.unregister()
        self._place.join(loop, self._filenos())

    def unregister(self) -> None:
        """Leave it alone."""
        self._place.leave(self._filenos())

    def _filenos(self) -> list[int]:
        return [call.fileno() for call in (self._wake, self._ears) if call.fileno() >= 0]

    def on_readable(self, fileno: int) -> None:
        """The loop found something to read."""
        for call in (self._wake, self._ears):
            if call.fileno() == fileno:
                if call.pending:
                    self._read(call)
                else:
                    # Nothing was asked: the server closed the connection.
                    call.disconnect()
                break
        else:
            # The loop still watches a number whose socket is gone.
            self._place.closing(fileno)
        while self._heard and self._hand_out():
            pass

    def _turn(self) -> float | None:
        """Hand out all that may be. Gives the seconds until there is more to do without being woken; None: nothing."""
        before = self._handed_out
        while self._hand_out():
            pass
        wanting = self._round()
        while self._hand_out():
            pass
        if self._handed_out != before:
            # What a callback leaves to the loop, as Celery its acknowledgements, is done in its next turn. Then there is
            # credit again; and others were served in between.
            return 0.0
        if wanting or self._gathering or self._failures or self._refused_since is not None:
            sleep = self._sleep(wanting)
            return sleep if sleep < BLOCK_SECONDS else None
        return None

    def close(self) -> None:
        """Give back what was not handed out; close the connections. What is held stays the keeper's."""
        self.unregister()
        for subscription in list(self._subscriptions.values()):
            self.cancel(subscription)
        self._wake.close()
        self._ears.close()
        self._connector.close()
