"""How soon a task starts, and what a worker costs that has nothing to do.

Each handler notes how long ago its task was enqueued (monotonic clock) or due (wall clock), before it does anything else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Bench, Window, Workers, cpu_of, run
from benchmarks.peers import CeleryPeer, Peer, RedisqPeer
from benchmarks.report import Figure, Report, Row, parser, percentile

#: Delayed tasks come due this many seconds after the first was enqueued, and over so many more.
DUE_AFTER, DUE_WITHIN = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    idle_tasks: int = 300
    interval: float = 0.02
    delayed_tasks: int = 1_000
    idle_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Latency:
    """One run: everything in seconds, but for percent, bytes and cores."""

    start: float
    idle_cpu: float
    rss: int
    idle: list[float]
    delayed: list[float]
    others: float


def measure(bench: Bench, peer: Peer, size: Size) -> Latency:
    """Start a worker, and ask it everything."""
    peer.clear()
    peer.stamp("monotonic", time.monotonic())
    with bench.workers(peer.command()) as workers:
        start = bench.take_stamps(1, workers, timeout=60)[0]
        time.sleep(1)
        processes = workers.tree()
        first = bench.sample(0, processes)
        rss, idle_cpu = workers.rss(), idle_percent(workers, size.idle_seconds)
        idle = idle_latency(bench, peer, workers, size)
        delayed = lateness(bench, peer, workers, size)
        window = Window(first, bench.sample(0, processes))
    peer.clear()
    return Latency(start, idle_cpu, rss, idle, delayed, window.others)


def idle_percent(workers: Workers, seconds: float) -> float:
    """CPU percent of one core while nothing happens."""
    processes = workers.tree()
    used, begin = cpu_of(processes), time.monotonic()
    time.sleep(seconds)
    workers.check()
    return (cpu_of(processes) - used) / (time.monotonic() - begin) * 100


def idle_latency(bench: Bench, peer: Peer, workers: Workers, size: Size) -> list[float]:
    """Enqueue to start, one task at a time."""
    begin = time.monotonic()
    for at in range(size.idle_tasks):
        time.sleep(max(0.0, begin + at * size.interval - time.monotonic()))
        peer.stamp("monotonic", time.monotonic())
    return bench.take_stamps(size.idle_tasks, workers, timeout=30)


def lateness(bench: Bench, peer: Peer, workers: Workers, size: Size) -> list[float]:
    """Due to start."""
    begin = time.time() + DUE_AFTER
    draw = random.Random(1)
    for _ in range(size.delayed_tasks):
        due = begin + draw.uniform(0, DUE_WITHIN)
        peer.stamp("wall", due, due)
    if time.time() > begin:
        raise RuntimeError(f"{peer.label} took longer than {DUE_AFTER} s to enqueue {size.delayed_tasks} delayed tasks")
    return bench.take_stamps(size.delayed_tasks, workers, timeout=DUE_AFTER + DUE_WITHIN + 30)


def in_ms(seconds: Sequence[Sequence[float]], percent: float) -> Figure:
    """That percentile of each run, in milliseconds."""
    return Figure.of(percentile(run_, percent) * 1000 for run_ in seconds)


def row(label: str, runs: Sequence[Latency]) -> Row:
    """One line of the table."""
    idle, delayed = [each.idle for each in runs], [each.delayed for each in runs]
    return {
        "what": label,
        "idle p50 ms": in_ms(idle, 50),
        "idle p99 ms": in_ms(idle, 99),
        "late p50 ms": in_ms(delayed, 50),
        "late p99 ms": in_ms(delayed, 99),
        "late max ms": in_ms(delayed, 100),
        "idle CPU %": Figure.of(each.idle_cpu for each in runs),
        "RSS MB": Figure.of(each.rss / 1e6 for each in runs),
        "first task s": Figure.of(each.start for each in runs),
        "others' cores": Figure.of(each.others for each in runs),
    }


def compare(bench: Bench, peers: Sequence[Peer], size: Size, runs: int) -> list[list[Latency]]:
    """Every peer once a round, so that noise hits all alike."""
    table = [[measure(bench, peer, size) for peer in peers] for _ in range(runs)]
    return [list(column) for column in zip(*table, strict=True)]


def main() -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--tasks", type=int, default=300, help="tasks to an idle worker, one each 20 ms")
    options.add_argument("--delayed", type=int, default=1_000, help="delayed tasks, due at random times within 5 s")
    options.add_argument("--peer", choices=["celery"], help="compare with Celery, prefork -c 2")
    args = options.parse_args()
    size = Size(idle_tasks=args.tasks, delayed_tasks=args.delayed)
    with Bench() as bench:
        report = Report(bench.redis, args.json)
        peers: list[Peer] = [RedisqPeer(bench)]
        if args.peer:
            peers.append(CeleryPeer(bench, "prefork"))
        results = compare(bench, peers, size, args.runs)
        report.table("latency", [row(peer.label, runs) for peer, runs in zip(peers, results, strict=True)])
        report.finish()


if __name__ == "__main__":
    run(main)
