"""How fast one synchronous process enqueues no-op tasks: one call after the other, and in bulk. No worker runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.harness import Bench, Window, run
from benchmarks.peers import BareProducer, CeleryPeer, DramatiqProducer, Producer, RedisqPeer, RqProducer
from benchmarks.report import Figure, Report, Row, parser

WARM_UP = 50


def spend(bench: Bench, work: Callable[[], object], tasks: int) -> Window:
    """Do the work once, and say what it took."""
    first = bench.sample(0)
    work()
    return Window(first, bench.sample(tasks))


def one_by_one(bench: Bench, producer: Producer, calls: int) -> Window:
    """So many calls in a row."""

    def work() -> None:
        enqueue = producer.enqueue
        for _ in range(calls):
            enqueue()

    producer.enqueue_many(WARM_UP)
    spent = spend(bench, work, calls)
    producer.clear()
    return spent


def bulk(bench: Bench, producer: Producer, tasks: int) -> Window:
    """So many tasks at once."""
    producer.enqueue_many(WARM_UP)
    spent = spend(bench, lambda: producer.enqueue_many(tasks), tasks)
    producer.clear()
    return spent


def compare(bench: Bench, producers: Sequence[Producer], calls: int, rounds: int) -> list[list[Window]]:
    """Every producer once a round, so that noise hits all alike."""
    table = [[one_by_one(bench, producer, calls) for producer in producers] for _ in range(rounds)]
    return [list(column) for column in zip(*table, strict=True)]


def rate(rounds: Sequence[Window]) -> Figure:
    """Tasks a second."""
    return Figure.of(each.rate for each in rounds)


def row(label: str, rounds: Sequence[Window], base: Figure) -> Row:
    """One line of the table."""
    return {
        "what": label,
        "tasks/s": rate(rounds),
        "client us/task": Figure.of(each.own_us for each in rounds),
        "redis us/task": Figure.of(each.redis_us for each in rounds),
        "others' cores": Figure.of(each.others for each in rounds),
        "ratio": rate(rounds).over(base),
    }


def all_producers(bench: Bench) -> list[Producer]:
    """redisq first."""
    return [RedisqPeer(bench), CeleryPeer(bench), RqProducer(bench), DramatiqProducer(bench), BareProducer(bench)]


def main() -> None:
    options = parser(__doc__, runs=10)
    options.add_argument("--calls", type=int, default=500, help="calls of one round, for each peer")
    options.add_argument("--bulk", type=int, default=100_000, help="tasks of all rounds together, in bulk")
    args = options.parse_args()
    with Bench() as bench:
        report = Report(bench.redis, args.json)
        producers = all_producers(bench)
        results = compare(bench, producers, args.calls, args.runs)
        base = rate(results[0])
        rows = [row(producer.label, rounds, base) for producer, rounds in zip(producers, results, strict=True)]
        report.table("enqueue one by one", rows)
        rounds = [bulk(bench, producers[0], args.bulk // args.runs) for _ in range(args.runs)]
        report.table("enqueue in bulk", [row("redisq delay_many", rounds, base)])
        report.finish()


if __name__ == "__main__":
    run(main)
