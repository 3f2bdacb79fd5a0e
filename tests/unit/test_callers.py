from __future__ import annotations

from redisq.broker.callers import Callers


def test_a_caller_that_was_given_back_is_taken_again_with_the_next_number() -> None:
    callers = Callers()
    first = callers.take()
    name, number = first.name, first.number
    callers.give_back(first)
    again = callers.take()
    assert (again.name, again.number) == (name, number + 1)


def test_a_caller_whose_call_was_never_answered_is_not_taken_again() -> None:
    callers = Callers()
    lost = callers.take()
    assert callers.take().name != lost.name


def test_a_forked_child_speaks_under_names_of_its_own() -> None:
    pid = [1]
    callers = Callers(getpid=lambda: pid[0])
    parents = [callers.take() for _ in range(3)]
    for caller in parents:
        callers.give_back(caller)
    pid[0] = 2
    childs = [callers.take() for _ in range(3)]
    assert not {caller.name for caller in parents} & {caller.name for caller in childs}


def test_a_child_keeps_the_names_that_it_made() -> None:
    pid = [1]
    callers = Callers(getpid=lambda: pid[0])
    pid[0] = 2
    caller = callers.take()
    callers.give_back(caller)
    assert callers.take() is caller
