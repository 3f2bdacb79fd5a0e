from __future__ import annotations

import subprocess
import sys

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


# A process of its own: pytest's has threads, and must not fork.
FORK = """
import os
from redisq.broker.callers import Callers

callers = Callers()
for caller in [callers.take() for _ in range(3)]:
    callers.give_back(caller)
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
for round in range(2):
    taken = [callers.take() for _ in range(3)]
    print("parent" if child else "child", *(caller.name for caller in taken), flush=True)
    for caller in taken:
        callers.give_back(caller)
"""


def test_a_forked_child_speaks_under_names_of_its_own_and_keeps_them() -> None:
    lines = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True).stdout.splitlines()
    names = [(line.split()[0], set(line.split()[1:])) for line in lines]
    (child, first), (_, second), (parent, parents), (_, parents_again) = names
    assert (child, parent) == ("child", "parent")
    assert first == second
    assert parents == parents_again
    assert not first & parents
