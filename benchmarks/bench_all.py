"""Everything in a compact form: one table of the figures that redisq is to reach, in about five minutes."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import bench_drain, bench_enqueue, bench_latency
from benchmarks.bench_drain import Case
from benchmarks.harness import Bench, run
from benchmarks.peers import BareProducer, CeleryPeer, RedisqPeer
from benchmarks.report import Cell, Figure, Report, Row, parser, short

TASKS, PEER_TASKS, CALLS, BULK = 20_000, 2_000, 1_000, 20_000


@dataclass(frozen=True, slots=True)
class Check:
    """One figure and its bar; `at_least` says on which side of the bar the figure must be. Without a bar it only informs."""

    what: str
    value: Figure | float
    bar: float | None
    at_least: bool = True

    def row(self) -> Row:
        """One line of the table."""
        cells: dict[str, Cell] = {"figure": self.what, "measured": self.value, "bar": None, "met": None}
        if self.bar is not None:
            value = self.value.median if isinstance(self.value, Figure) else self.value
            met = value >= self.bar if self.at_least else value <= self.bar
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
        Check("drain, Redis CPU us/task", bench_drain.redis_us(results[0]), 10, at_least=False),
        Check("drain, worker CPU us/task", bench_drain.worker_us(results[0]), None),
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


def main() -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--backlog", type=int, default=1_000_000, help="length of the long queue")
    args = options.parse_args()
    with Bench() as bench:
        report = Report(bench.redis, args.json)
        checks = [
            *drains(bench, args.runs, args.backlog),
            *enqueues(bench, args.runs + 2),
            *latencies(bench, args.runs),
        ]
        report.table("against the bars", [check.row() for check in checks])
        report.finish()


if __name__ == "__main__":
    run(main)
