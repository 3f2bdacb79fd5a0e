"""User code under `mypy --strict`: what must pass passes, and each error is where it must be (`tests/typing/*.py`).

A line that must not pass ends in `# E: ` and words of its error; once for each error.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))


def wanted(file: Path) -> list[tuple[int, str]]:
    """Line and words of each error that the file names."""
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    return [(number, words.strip()) for number, line in lines for words in line.split("# E: ")[1:]]


def found(report: str, file: Path) -> list[tuple[int, str]]:
    """Line and text of each error in mypy's report on a file."""
    name = re.escape(file.relative_to(ROOT).as_posix())
    return [(int(match[1]), match[2]) for match in re.finditer(rf"^{name}:(\d+): error: (.*)$", report, re.MULTILINE)]


def differences(report: str, file: Path) -> list[str]:
    """The errors that did not come, and those that nobody wants."""
    left, surprises = wanted(file), []
    for line, text in found(report, file):
        match = next((want for want in left if want[0] == line and want[1] in text), None)
        if match:
            left.remove(match)
        else:
            surprises.append(f"{file.name}:{line}: not wanted: {text}")
    return [f"{file.name}:{line}: did not come: {words}" for line, words in left] + surprises


@pytest.mark.timeout(300)
def test_the_errors_are_those_that_the_files_name(tmp_path: Path) -> None:
    # Nothing is set but --strict, as in a project of a user. Silent: errors in redisq itself are another check's business.
    options = ("--strict", "--config-file=", f"--cache-dir={tmp_path}", "--follow-imports=silent")
    done = subprocess.run([sys.executable, "-m", "mypy", *options, *FILES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, f"mypy found no error at all, or could not run:\n{done.stdout}{done.stderr}"
    assert [difference for file in FILES for difference in differences(done.stdout, file)] == []
    assert all(wanted(file) for file in FILES), "a file without an error does not show that mypy looks at it"
