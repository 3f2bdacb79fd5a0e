"""The verifier sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.ledger import Book, Entry, read
from tests.chaos.verdict import Fault, Verdict, judge


def _judged(text: str, *faults: Fault) -> Verdict:
    """Entries as "kind number writer", one second apart."""
    rows = [row.split() for row in text.split(",")]
    entries = [Entry(kind, int(number), writer, float(at)) for at, (kind, number, writer) in enumerate(rows)]
    return judge(entries, faults)


SENT = "I 1 p, C 1 p"


def test_a_message_that_ran_once_is_fine() -> None:
    verdict = _judged(f"{SENT}, S 1 a, E 1 a")
    assert (verdict.confirmed, verdict.lost, verdict.duplicates, verdict.interrupted) == (1, [], [], [])


def test_a_confirmed_message_that_never_ended_is_lost() -> None:
    assert _judged(SENT).lost == [1]
    assert _judged(f"{SENT}, S 1 a").lost == [1]


def test_an_unknown_message_may_run_or_not() -> None:
    assert _judged("I 1 p, U 1 p").lost == []
    verdict = _judged("I 1 p, U 1 p, S 1 a, E 1 a")
    assert (verdict.unknown, verdict.duplicates, verdict.strangers) == (1, [], [])


def test_what_was_never_sent_is_a_stranger() -> None:
    assert _judged("S 1 a, E 1 a").strangers == [1]


def test_a_second_end_is_a_duplicate_that_only_a_fault_before_it_explains() -> None:
    twice = f"{SENT}, S 1 a, E 1 a, S 1 b, E 1 b"
    assert len(_judged(twice).unexplained) == 1
    assert len(_judged(twice, Fault("kill", "b", 3.5, 3.5)).unexplained) == 1, "another worker's"
    assert len(_judged(twice, Fault("kill", "a", 5.5, 5.5)).unexplained) == 1, "too late"
    assert len(_judged(twice, Fault("kill", "a", 1.5, 1.5)).unexplained) == 1, "too early"
    for fault in (Fault("kill", "a", 3.5, 3.5), Fault("freeze", "a", 1, 9), Fault("restart", "", 2.5, 3.5)):
        verdict = _judged(twice, fault)
        assert (len(verdict.duplicates), verdict.unexplained, verdict.overlapping) == (1, [], [])


def test_runs_at_the_same_time_overlap() -> None:
    verdict = _judged(f"{SENT}, S 1 a, S 1 b, E 1 b, E 1 a")
    assert len(verdict.overlapping) == 1


def test_a_killed_run_is_interrupted_and_its_recovery_is_timed() -> None:
    verdict = _judged(f"{SENT}, S 1 a, S 1 b, E 1 b", Fault("kill", "a", 2.5, 2.5))
    assert (len(verdict.interrupted), verdict.abandoned, verdict.recovery) == (1, [], [0.5])


def test_a_run_that_ends_without_a_kill_is_abandoned() -> None:
    assert len(_judged(f"{SENT}, S 1 a, S 1 a, E 1 a").abandoned) == 1


def test_a_run_that_was_told_to_leave_has_not_ended_and_runs_no_more() -> None:
    verdict = _judged(f"{SENT}, S 1 a, S 1 b, X 1 a, E 1 b")
    assert ([run.writer for run in verdict.abandoned], verdict.duplicates) == (["a"], [])
    verdict = _judged(f"{SENT}, S 1 a, X 1 a, S 1 a, E 1 a")
    assert (len(verdict.abandoned), verdict.lost, verdict.silence) == (1, [], 1.0)


def test_silence_counts_while_there_is_work_and_nothing_runs() -> None:
    assert _judged("I 1 p, C 1 p, I 2 p, S 1 a, E 1 a, I 3 p").silence == 1.0
    assert judge([Entry("C", 1, "p", 0.0), Entry("S", 1, "a", 7.0), Entry("E", 1, "a", 90.0)], []).silence == 7.0
    killed = [Entry("C", 1, "p", 0.0), Entry("S", 1, "a", 0.0), Entry("S", 1, "b", 30.0), Entry("E", 1, "b", 31.0)]
    assert judge(killed, [Fault("kill", "a", 10.0, 10.0)]).silence == 20.0


def test_the_ledger_gives_back_what_was_noted(tmp_path: Path) -> None:
    first, second = Book(tmp_path, "a"), Book(tmp_path, "b")
    first.note("S", 1)
    second.note("C", 2, 3)
    first.note("E", 1)
    first.close()
    second.close()
    entries = read(tmp_path)
    assert [entry[:3] for entry in entries] == [("S", 1, "a"), ("C", 2, "b"), ("C", 3, "b"), ("E", 1, "a")]
    assert entries[0].at <= entries[-1].at
