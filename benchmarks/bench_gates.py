"""What a claim costs Redis while very many messages wait at a limit that is used up: at each grant, and at its worst.

All messages share one rate and each has a lane; so many are let through as the rate allows, a call each few milliseconds.
The time of a call is that inside the script, by `INFO commandstats`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.harness import Bench, run
from benchmarks.report import Figure, Report, Row, parser, percentile
from redisq.broker import commands
from redisq.broker.connection import Server
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.codec.msgpack import encode
from redisq.message import Delivery, Message, new_ids

KEYS = QueueKeys("bench")
LEASE = 600_000_000
PER_SECOND = 2_000
RULES = {"bot": f"{PER_SECOND} 1000000 {PER_SECOND // 20}"}
PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Calls:
    """Microseconds in the script of each call, and how many messages all of them gave or took."""

    times: Sequence[float]
    messages: int

    @property
    def each(self) -> float:
        """Microseconds a message."""
        return sum(self.times) / max(self.messages, 1)


class Parked:
    """A queue with so many messages behind one limit."""

    def __init__(self, bench: Bench, connector: Connector, parked: int, lanes: int) -> None:
        self._bench = bench
        self._connector = connector
        self._parked = parked
        self._lanes = lanes

    def fill(self) -> Calls:
        """Send all of them."""
        body = encode(Message("noop"))
        times = []
        for at in range(0, self._parked, PAGE):
            page = [
                commands.Enqueue(new, body, descriptor=f"0 C @{number % self._lanes} Rbot,1", definitions=RULES)
                for number, new in enumerate(new_ids(PAGE), at)
            ]
            times.append(self._timed(commands.enqueue(KEYS, page))[0])
        return Calls(times, self._parked)

    def settle_in(self) -> Calls:
        """Claim without a pause until every lane has met the limit once."""
        times, taken = [], 0
        while True:
            spent, claimed = self._claim()
            times.append(spent)
            taken += len(claimed.deliveries)
            self._ack(claimed.deliveries)
            if claimed.next_due != 0:
                return Calls(times, taken)

    def grants(self, seconds: float) -> Calls:
        """Claim and acknowledge as a worker does: when it is told that the gate opens, 50 times a second at most."""
        times, taken = [], 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            spent, claimed = self._claim()
            times += [spent, self._ack(claimed.deliveries)]
            taken += len(claimed.deliveries)
            time.sleep(0.02)
        return Calls(times, taken)

    def _claim(self) -> tuple[float, commands.Claimed]:
        return self._timed(commands.claim(KEYS, worker="bench", limit=100, lease=LEASE, max_crashes=3))

    def _ack(self, deliveries: Sequence[Delivery]) -> float:
        acks = [commands.Settlement("ack", delivery.id, delivery.fence) for delivery in deliveries]
        return self._timed(commands.settle(KEYS, acks, 1))[0]

    def _timed(self, command: commands.Command[commands.T_co]) -> tuple[float, commands.T_co]:
        before = self._spent()
        result = self._connector.execute(command)
        return self._spent() - before, result

    def _spent(self) -> float:
        stats = self._bench.redis.info("commandstats")
        return float(sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("eval", "evalsha")))


def row(parked: int, lanes: int, what: str, calls: Calls) -> Row:
    """One line of the table."""
    return {
        "parked": parked,
        "lanes": lanes,
        "what": what,
        "calls": len(calls.times),
        "us/message": Figure.of([calls.each]),
        "p50 ms": percentile(calls.times, 50) / 1000,
        "p99 ms": percentile(calls.times, 99) / 1000,
        "longest ms": max(calls.times) / 1000,
    }


def main() -> None:
    options = parser(__doc__, runs=1)
    options.add_argument("--parked", type=int, nargs="*", default=[20_000, 100_000], help="messages that wait")
    options.add_argument("--lanes", type=int, default=1_000, help="that they are spread over")
    options.add_argument("--seconds", type=float, default=5.0, help="to grant for")
    args = options.parse_args()
    with Bench() as bench, closing(Server(bench.url).connector("bench")) as connector:
        report = Report(bench.redis, args.json)
        rows = []
        for parked in args.parked:
            queue = Parked(bench, connector, parked, args.lanes)
            filled, met, granted = queue.fill(), queue.settle_in(), queue.grants(args.seconds)
            rows += [
                row(parked, args.lanes, "sent, 1,000 a call", filled),
                row(parked, args.lanes, "first meet the limit", met),
                row(parked, args.lanes, "let through and acknowledged", granted),
            ]
            bench.clear((f"{KEYS.prefix}:*",))
        report.table("gates", rows)
        report.finish()


if __name__ == "__main__":
    run(main)
