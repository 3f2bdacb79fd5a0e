"""How fast a set of messages can be sent at all, by one who knows all of them beforehand.

Times are whole microseconds.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from tests.integration.chat_platform import Rule, Rules, Sent


@dataclass(frozen=True)
class Arrival:
    """A message that a bot has to send.

    Attributes:
        at: When it comes; it cannot be sent before.
        chat_id: Where to; negative: a group.
        text: What.
    """

    at: int
    chat_id: int
    text: str = ""


def lower_bound(arrivals: Sequence[Arrival], rules: Rules) -> int:
    """Return a time before which no schedule that keeps the rules can have sent the last message.

    Proof. Take one limit (the bot's, a chat's or a group's) and any time a. Let k be the messages that the limit counts
    and that come at a or later. All k are sent in the window from a to the time t of the last of them, and in any window of
    length t - a the limit allows at most burst + rate * (t - a). So k <= burst + rate * (t - a), that is
    t >= a + (k - burst) / rate; and t >= a, as nothing is sent before it comes. What is true for each limit and each a is
    true for the largest of these values. Only times a at which a message comes need to be tried: between two of them k is
    the same, and the later a gives more.

    It says nothing of how the limits work together (order within a chat, a chat that is needed while the bot is at its
    limit), so it may be below what can be reached: `achievable` is a time that can.
    """
    counted: defaultdict[str, list[int]] = defaultdict(list)
    limits: dict[str, Rule] = {}
    for arrival in arrivals:
        for name, rule in rules.of(arrival.chat_id):
            counted[name].append(arrival.at)
            limits[name] = rule
    return max((_last(times, limits[name]) for name, times in counted.items()), default=0)


def _last(times: list[int], rule: Rule) -> int:
    times.sort()
    interval = Fraction(rule.period, rule.count)
    return max(at + ceil(max(0, len(times) - index - rule.burst) * interval) for index, at in enumerate(times))


def achievable(arrivals: Iterable[Arrival], rules: Rules, service: int = 0) -> list[Sent]:
    """Return a schedule that keeps the rules and the order in each chat: greedy, so not always the best, but a real one.

    Whenever the bot's limit allows a message, one of the chats that may have one gets it: the one that needs the longest
    for all that it still has to send, since it is the one that could end last.

    Args:
        arrivals: In any order; those of one chat are sent in the order of `at`.
        rules: The limits.
        service: Microseconds that sending takes: a chat's next message starts after that.
    """
    waiting: defaultdict[int, deque[Arrival]] = defaultdict(deque)
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at):
        waiting[arrival.chat_id].append(arrival)
    bot = _Gate(rules.bot)
    gates = {chat_id: [_Gate(rule) for _, rule in rules.of(chat_id)[1:]] for chat_id in waiting}
    pace = {chat_id: max(service, *(gate.interval for gate in found)) for chat_id, found in gates.items()}
    later = [(queue[0].at, chat_id) for chat_id, queue in waiting.items()]
    heapq.heapify(later)
    ready: list[tuple[int, int]] = []
    sent: list[Sent] = []
    now = 0
    while later or ready:
        now = max(bot.opens(), now)
        if not ready:
            now = max(now, later[0][0])
        while later and later[0][0] <= now:
            _, chat_id = heapq.heappop(later)
            heapq.heappush(ready, (-len(waiting[chat_id]) * pace[chat_id], chat_id))
        _, chat_id = heapq.heappop(ready)
        message = waiting[chat_id].popleft()
        sent.append(Sent(now, chat_id, message.text))
        for gate in (bot, *gates[chat_id]):
            gate.take(now)
        if waiting[chat_id]:
            opens = max(gate.opens() for gate in gates[chat_id])
            heapq.heappush(later, (max(waiting[chat_id][0].at, opens, now + service), chat_id))
    return sent


class _Gate:
    """One limit as a bot keeps it: as the platform's, with the interval rounded up."""

    def __init__(self, rule: Rule) -> None:
        self.interval = -(-rule.period // rule.count)
        # The tolerance is what the rule says, rounded down.
        self._tolerance = max(0, rule.burst * rule.period // rule.count - self.interval)
        self._theoretical = 0

    def opens(self) -> int:
        return self._theoretical - self._tolerance

    def take(self, now: int) -> None:
        self._theoretical = max(self._theoretical, now) + self.interval
