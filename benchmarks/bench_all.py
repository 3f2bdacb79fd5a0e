"""Everything in a compact form: one table of the figures that redisq is to reach, in a few minutes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from benchmarks import bench_drain, bench_enqueue, bench_latency, bench_script
from benchmarks.bench_drain import Case
from benchmarks.harness import Bench, run
from benchmarks.peers import BareProducer, CeleryPeer, RedisqPeer
from benchmarks.report import Cell, Figure, Report, Row, parser, short
from redisq.broker.connection import Server
from redisq.broker.keys import QueueKeys

TASKS, PEER_TASKS, CALLS, BULK = 20_000, 2_000, 500, 10_000
SCRIPT_BATCH = 100


@dataclass(frozen=True, slots=True)
class Check:
    """One figure and its bar; `at_least` says on which side of the bar the figure must be. Without a bar it only informs."""

    what: str
    value: Figure
    bar: float | None
    at_least: bool = True

    def row(self) -> Row:
        """One line of the table."""
        cells: dict[str, Cell] = {"figure": self.what, "measured": self.value, "bar": None, "met": None}
        if self.bar is not None:
            met = self.value.median >= self.bar if self.at_least else self.value.median <= self.bar
            cells |= {"bar": f"{'>=' if self.at_least else '<='} {short(self.bar)}", "met": "yes" if met else "NO"}
        return cells


def drains(bench: Bench, runs: int, backlog: int) -> list[Check]:
    """One worker, in its variants, and the peer's, in turns."""
    redisq = RedisqPeer(bench)
    cases = [
        Case(redisq, TASKS),
        Case(redisq, TASKS, backlog),
        Case(RedisqPeer(bench, sync=True), TASKS),
        Case(redisq, 2 * TASKS, processes=2),
        *(Case(CeleryPeer(bench, pool), PEER_TASKS) for pool in ("solo", "prefork")),
    ]
    results = bench_drain.compare(bench, cases, runs)
    plain, long, threads, two, *celery = (bench_drain.rates(drains) for drains in results)
    return [
        Check("drain, tasks/s", plain, 20_000),
        Check("drain / the better Celery (acks_late)", plain.over(max(celery, key=lambda each: each.median)), 20),
        Check(f"drain at a backlog of {backlog:,} / of {TASKS:,}", long.over(plain), 0.85),
        Check("drain, Redis CPU us/task", Figure.of(each.redis_us for each in results[0]), 10, at_least=False),
        Check("drain, worker CPU us/task", Figure.of(each.worker_us for each in results[0]), None),
        Check("drain, handlers in threads, tasks/s", threads, None),
        Check("drain, two worker processes, tasks/s", two, None),
    ]


def enqueues(bench: Bench, rounds: int) -> list[Check]:
    """One by one against the peers, and in bulk."""
    producers = bench_enqueue.all_producers(bench)
    results = bench_enqueue.compare(bench, producers, CALLS, rounds)
    ours, *others = (bench_enqueue.rate(spent) for spent in results)
    many = bench_enqueue.rate([bench_enqueue.bulk(bench, producers[0], BULK) for _ in range(rounds)])
    return [
        Check(".delay one by one, tasks/s", ours, None),
        *(
            Check(f".delay one by one / {producer.label}", ours.over(rate), None if isinstance(producer, BareProducer) else 1)
            for producer, rate in zip(producers[1:], others, strict=True)
        ),
        Check("delay_many, tasks/s", many, 60_000),
    ]


def latencies(bench: Bench, runs: int) -> list[Check]:
    """An idle worker, and delayed tasks."""
    results = [bench_latency.measure(bench, RedisqPeer(bench), bench_latency.Size()) for _ in range(runs)]
    idle, late = [each.idle for each in results], [each.delayed for each in results]
    return [
        Check("idle worker, enqueue to start p50, ms", bench_latency.in_ms(idle, 50), 2, at_least=False),
        Check("delayed, lateness p99, ms", bench_latency.in_ms(late, 99), 10, at_least=False),
        Check("idle worker, CPU %", Figure.of(each.idle_cpu for each in results), 1, at_least=False),
    ]


def scripts(bench: Bench, rounds: int) -> list[Check]:
    """What the three scripts cost the server, without any worker."""
    with closing(Server(bench.url).connector("bench")) as connector:
        side = bench_script.Side(bench, connector, QueueKeys("bench"))
        (costs,) = bench_script.compare([side], SCRIPT_BATCH, rounds)
    return [
        Check(f"{step} at batch {SCRIPT_BATCH}, Redis CPU us/task", Figure.of(cost[step].cpu for cost in costs), None)
        for step in bench_script.STEPS
    ]


def main() -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--backlog", type=int, default=1_000_000, help="length of the long queue")
    args = options.parse_args()
    with Bench() as bench:
        report = Report(bench.redis, args.json)
        checks = [
            *drains(bench, args.runs, args.backlog),
            *enqueues(bench, 3 * args.runs + 1),
            *latencies(bench, args.runs),
            *scripts(bench, args.runs),
        ]
        report.table("against the bars", [check.row() for check in checks])
        report.finish()


if __name__ == "__main__":
    run(main)
