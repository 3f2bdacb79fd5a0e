"""How fast a worker empties a full queue of no-op tasks, and what each task costs.

The queue is filled first, then the worker starts. Its counter is read every 5 ms: the time runs from the first look that
shows a finished task to the first that shows all of them. CPU times are taken at the same two moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Bench, Window, run, wait_until
from benchmarks.peers import CeleryPeer, LanesPeer, Peer, RedisqPeer
from benchmarks.report import Figure, Report, Row, parser

#: Several processes do not start in one moment: with more than one, the first quarter is left out.
HEAD_START = 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """What is drained: so many tasks of a queue that holds at least as many."""

    peer: Peer
    tasks: int
    backlog: int = 0
    processes: int = 1

    @property
    def filled(self) -> int:
        return max(self.tasks, self.backlog)


@dataclass(frozen=True, slots=True)
class Drain(Window):
    """One drain, and the time from starting the worker to the last task."""

    whole: float


def drain(bench: Bench, case: Case, timeout: float = 300) -> Drain:
    """Fill, start, measure, stop."""
    peer = case.peer
    peer.clear()
    peer.enqueue_many(case.filled)
    with bench.workers(peer.command(), case.processes) as workers:

        def reached(count: float) -> int:
            workers.check()
            done = peer.done()
            return done if done >= count else 0

        begin = case.tasks * HEAD_START if case.processes > 1 else 1
        wait_until(lambda: reached(begin), timeout, "the first task", workers)
        processes = workers.tree()
        first = bench.sample(peer.done(), processes)
        if first.done > case.tasks / 2:
            raise RuntimeError(f"{peer.label} had done {first.done} tasks at the first look: measure more than {case.tasks}")
        done = wait_until(lambda: reached(case.tasks), timeout, "the last task", workers)
        last = bench.sample(done, processes)
        whole = last.at - workers.started
    peer.clear()
    return Drain(first, last, whole)


def rates(drains: Sequence[Drain]) -> Figure:
    """Tasks a second."""
    return Figure.of(each.rate for each in drains)


def row(label: str, drains: Sequence[Drain], base: Figure) -> Row:
    """One line of the table."""
    return {
        "what": label,
        "tasks/s": rates(drains),
        "worker us/task": Figure.of(each.worker_us for each in drains),
        "redis us/task": Figure.of(each.redis_us for each in drains),
        "with start-up s": Figure.of(each.whole for each in drains),
        "others' cores": Figure.of(each.others for each in drains),
        "ratio": rates(drains).over(base),
    }


def compare(bench: Bench, cases: Sequence[Case], runs: int) -> list[list[Drain]]:
    """Drain each case `runs` times, in turns, so that noise hits all alike."""
    rounds = [[drain(bench, case) for case in cases] for _ in range(runs)]
    return [list(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    options = parser(__doc__, runs=3)
    options.add_argument("--tasks", type=int, default=20_000, help="tasks of redisq")
    options.add_argument("--concurrency", type=int, default=100, help="of redisq's worker")
    options.add_argument("--threads", action="store_true", help="a plain function as handler")
    options.add_argument("--workers", type=int, default=1, help="worker processes of redisq")
    options.add_argument("--backlog", type=int, default=0, help="also drain as many tasks from a queue that holds so many")
    options.add_argument("--gates", action="store_true", help="also tasks with lanes, and with two limits that never refuse")
    options.add_argument("--peer", choices=["celery"], help="compare with Celery, acks_late, solo and prefork -c 2")
    options.add_argument("--peer-tasks", type=int, default=2_000, help="tasks of the peer")
    args = options.parse_args()
    with Bench() as bench:
        report = Report(bench.redis, args.json)
        redisq = RedisqPeer(bench, sync=args.threads, concurrency=args.concurrency)
        cases = [Case(redisq, args.tasks, processes=args.workers)]
        if args.backlog:
            cases.append(Case(redisq, args.tasks, args.backlog, args.workers))
        if args.gates:
            lanes = [LanesPeer(bench, limits=limits, concurrency=args.concurrency) for limits in (False, True)]
            cases += [Case(peer, args.tasks, processes=args.workers) for peer in lanes]
        if args.peer:
            cases += [Case(CeleryPeer(bench, pool), args.peer_tasks) for pool in ("solo", "prefork")]
        results = compare(bench, cases, args.runs)
        base = rates(results[0])
        rows = []
        for case, drains in zip(cases, results, strict=True):
            label = case.peer.label + (f" x{case.processes}" if case.processes > 1 else "")
            label += f", {case.tasks:,}" + (f" of {case.backlog:,}" if case.backlog else "")
            rows.append(row(label, drains, base))
        report.table("drain", rows)
        report.finish()


if __name__ == "__main__":
    run(main)
