"""What the ledger and the faults of a run say together: what was lost, what ran twice, and for what reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from tests.chaos.ledger import Entry

__all__ = ["Fault", "Run", "Verdict", "judge", "runs_of"]


class Fault(NamedTuple):
    """What was done to a worker process, or to the broker (`writer` is empty), from when to when."""

    kind: str
    writer: str
    began: float
    ended: float


class Run(NamedTuple):
    """One run of a handler; `ended` is None when it did not end."""

    number: int
    writer: str
    started: float
    ended: float | None


@dataclass
class Verdict:
    """The figures of a run.

    Attributes:
        confirmed: Messages that the producer was told are stored.
        unknown: Messages that may or may not have arrived; they may run or not.
        lost: Confirmed, and never ended.
        duplicates: Ended runs beyond the first: (the run before, the run).
        unexplained: Those of them with no fault on the worker or the broker between the two starts.
        overlapping: Those of them that began before the run before had ended.
        interrupted: Runs that never ended.
        abandoned: Those of them whose worker nobody killed.
        unsettled: From the end of a run to the kill that left it without its settlement, for those of the duplicates; seconds.
        strangers: Numbers that ran, and were never sent.
        silence: The longest time in which nothing happened, nothing ran, and there was work; seconds.
        recovery: From the end of each killed run's worker until its message ran again; seconds.
    """

    confirmed: int = 0
    unknown: int = 0
    lost: list[int] = field(default_factory=list)
    duplicates: list[tuple[Run, Run]] = field(default_factory=list)
    unexplained: list[tuple[Run, Run]] = field(default_factory=list)
    overlapping: list[tuple[Run, Run]] = field(default_factory=list)
    interrupted: list[Run] = field(default_factory=list)
    abandoned: list[Run] = field(default_factory=list)
    unsettled: list[float] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)
    silence: float = 0.0
    recovery: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        unsettled = ", ".join(f"{1000 * each:.1f}" for each in self.unsettled) or "-"
        recovered = f"{median(self.recovery):.1f} / {max(self.recovery):.1f}" if self.recovery else "-"
        return (
            f"confirmed {self.confirmed}, unknown {self.unknown}, LOST {len(self.lost)}, DUP {len(self.duplicates)} "
            f"({len(self.overlapping)} overlapping, {len(self.unexplained)} unexplained, ms before a kill: {unsettled}), "
            f"interrupted {len(self.interrupted)} ({len(self.abandoned)} by nobody), recovery p50 / max {recovered} s, "
            f"longest silence {self.silence:.1f} s"
        )


def runs_of(entries: Iterable[Entry]) -> list[Run]:
    """Starts of a number, with the end or the cancellation that followed in the same process."""
    runs: list[Run] = []
    running: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        key = (entry.writer, entry.number)
        if entry.kind == "S":
            if before := running.get(key):
                runs.append(Run(before.number, before.writer, before.at, None))
            running[key] = entry
        elif entry.kind in "EX":
            runs.append(Run(entry.number, entry.writer, running.pop(key).at, entry.at if entry.kind == "E" else None))
    runs += [Run(entry.number, entry.writer, entry.at, None) for entry in running.values()]
    return sorted(runs, key=lambda run: run.started)


def judge(entries: Sequence[Entry], faults: Sequence[Fault]) -> Verdict:
    """Judge a run that has come to its end. `entries` in the order of time."""
    sent = {kind: {entry.number for entry in entries if entry.kind == kind} for kind in "ICU"}
    runs = runs_of(entries)
    kills = {fault.writer: fault.began for fault in faults if fault.kind == "kill"}
    ended = {run.number for run in runs if run.ended is not None}
    interrupted = [run for run in runs if run.ended is None]
    duplicates = _duplicates(runs)
    return Verdict(
        confirmed=len(sent["C"]),
        unknown=len(sent["U"]),
        lost=sorted(sent["C"] - ended),
        duplicates=duplicates,
        unexplained=[pair for pair in duplicates if not _is_explained(*pair, faults)],
        overlapping=[(first, second) for first, second in duplicates if second.started < (first.ended or 0)],
        interrupted=interrupted,
        abandoned=[run for run in interrupted if run.writer not in kills],
        unsettled=[kills[first.writer] - (first.ended or 0) for first, _ in duplicates if first.writer in kills],
        strangers=sorted({run.number for run in runs} - sent["I"]),
        silence=_silence(entries, kills),
        recovery=[
            again - kills[run.writer]
            for run in interrupted
            if run.writer in kills
            for again in [_next_start(runs, run)]
            if again is not None
        ],
    )


def _duplicates(runs: Iterable[Run]) -> list[tuple[Run, Run]]:
    last: dict[int, Run] = {}
    pairs = []
    for run in runs:
        if run.ended is not None:
            if run.number in last:
                pairs.append((last[run.number], run))
            last[run.number] = run
    return pairs


def _is_explained(first: Run, second: Run, faults: Iterable[Fault]) -> bool:
    # What a frozen worker was given, it may begin when it is thawed, and others have long run it.
    return any(
        (fault.writer in ("", first.writer) or (fault.kind == "freeze" and fault.writer == second.writer))
        and fault.began <= second.started
        and fault.ended >= first.started
        for fault in faults
    )


def _next_start(runs: Iterable[Run], run: Run) -> float | None:
    return next((other.started for other in runs if other.number == run.number and other.started > run.started), None)


def _silence(entries: Iterable[Entry], kills: dict[str, float]) -> float:
    """Confirmed work waits, no handler runs that could end, and nothing starts."""
    events = [(entry.at, entry.kind, entry.number, entry.writer) for entry in entries]
    events += [(at, "kill", -1, writer) for writer, at in kills.items()]
    waiting: set[int] = set()
    ended: set[int] = set()
    running: set[tuple[str, int]] = set()
    longest, before = 0.0, None
    for at, kind, number, writer in sorted(events):
        if before is not None and waiting and not running:
            longest = max(longest, at - before)
        before = at
        if kind == "C" and number not in ended:
            waiting.add(number)
        elif kind == "S":
            running.add((writer, number))
        elif kind == "X":
            running.discard((writer, number))
        elif kind == "E":
            running.discard((writer, number))
            waiting.discard(number)
            ended.add(number)
        elif kind == "kill":
            running = {each for each in running if each[0] != writer}
    return longest
