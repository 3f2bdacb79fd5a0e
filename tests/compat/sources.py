"""The test suites of kombu and Celery, from their released sdists: downloaded when they are run, never kept here."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path


def unpacked(project: str) -> Path:
    """The sdist of the installed version of a project, in `$REDISQ_TEST_CACHE`. Safe when processes race."""
    cache = Path(os.environ.get("REDISQ_TEST_CACHE") or Path.home() / ".cache" / "redisq-tests")
    name = f"{project}-{version(project)}"
    folder = cache / name
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            subprocess.run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--dest", work,
                    f"{project}=={version(project)}",
                ],
                check=True,
            )  # fmt: skip
            (sdist,) = Path(work).glob("*.tar.gz")
            with tarfile.open(sdist) as archive:
                archive.extractall(work, filter="data")
            try:
                Path(work, name).rename(folder)
            except OSError:
                assert folder.exists()  # another process was first
    return folder
