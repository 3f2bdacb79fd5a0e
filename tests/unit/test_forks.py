"""Hooks for forked children."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Ends while an object with a hook still lives: in a cycle, or held by another module.
_PROGRAM = """
import os, sys
from redisq.broker.forks import after_fork

class Owner:
    def called(self):
        self.seen = os.getpid()

owner = Owner()
after_fork(owner.called)
child = os.fork()
if child == 0:
    os._exit(0 if owner.seen == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
if sys.argv[1] == "a cycle":
    owner.itself = owner
else:
    sys.modules["builtins"].owner = owner
"""


@pytest.mark.parametrize("held", ["a cycle", "a module"])
def test_program_ends_without_a_word_whatever_holds_the_owner_of_a_hook(held: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, held], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
