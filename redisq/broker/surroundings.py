"""Whether this process looks deployed: there the embedded server is never started unasked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Surroundings", "deployment"]

_MARKERS = ("/.dockerenv", "/run/.containerenv")
_CONTAINERS = ("docker", "kubepods", "containerd", "libpod", "/lxc")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process sees of its machine, beside its environment variables.

    Attributes:
        pid: Its number.
        marked: Whether a file says that this is a container.
        cgroup: The text of its `/proc/self/cgroup`; empty where there is none.
    """

    pid: int
    marked: bool = False
    cgroup: str = ""

    @classmethod
    def here(cls) -> Surroundings:
        """Look around this process."""
        try:
            cgroup = Path("/proc/self/cgroup").read_text()
        except OSError:
            cgroup = ""
        return cls(os.getpid(), any(Path(marker).exists() for marker in _MARKERS), cgroup)


def deployment(environ: Mapping[str, str], here: Surroundings) -> str | None:
    """Return why this looks like a deployment, in words, or None on a developer's machine. Pure."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "this is Kubernetes"
    if here.marked or environ.get("container") or any(word in here.cgroup for word in _CONTAINERS):
        return "this is a container"
    if here.pid == 1:
        return "this is process 1"
    if ("INVOCATION_ID" in environ or "JOURNAL_STREAM" in environ) and not _in_session(here.cgroup):
        return "this runs under systemd"
    return None


def _in_session(cgroup: str) -> bool:
    """Whether somebody's terminal or desktop started this.

    Desktops are systemd services themselves, so every terminal of theirs inherits the variables of one. But what a
    person starts is in a scope (`session-3.scope`, `vte-spawn-...scope`) or an `app-...` unit, not in a plain service.
    """
    units = [line.rpartition("/")[2] for line in cgroup.splitlines()]
    return any(unit.endswith(".scope") or unit.startswith("app-") for unit in units)
