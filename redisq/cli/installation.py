"""What is installed here; and whether another project's package of our import's name is installed, too."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version

import redisq
from redisq.broker.health import Finding, Level

__all__ = ["installation", "others_warning"]

#: The distribution of another project on the public index. It has a package `redisq` as well: each overwrites the other.
_OTHERS = "redisq"

#: A file that only this project's distribution has, also when it is a clone that was installed under the old name.
_OUR_FILE = "redisq/broker/scripts.py"


def installation(paths: Sequence[str] | None = None) -> Finding:
    """Say what is installed here.

    Args:
        paths: Where packages are looked for; None: where Python looks.
    """
    parts = [f"redisq {redisq.__version__}"]
    for name, package in (("redis-py", "redis"), ("hiredis", "hiredis"), ("uvloop", "uvloop")):
        try:
            parts.append(f"{name} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"no {name} (pip install 'redisq-tasks[speedups]')")
    text = ", ".join(parts)
    warning = others_warning(paths)
    return Finding("installation", Level.WARNING, f"{text}; {warning}") if warning else Finding("installation", Level.OK, text)


def others_warning(paths: Sequence[str] | None = None) -> str:
    """Say that another project's `redisq` is installed, and what to do; empty if none is. As `installation`."""
    found = distributions(name=_OTHERS) if paths is None else distributions(name=_OTHERS, path=list(paths))
    for each in found:
        if not _is_ours(each):
            return (
                f"the package {_OTHERS} {each.version} in {each.locate_file('')} is another project's and overwrites files of this"
                f" one: pip uninstall {_OTHERS}, then pip install --force-reinstall redisq-tasks"
            )
    return ""


def _is_ours(found: Distribution) -> bool:
    files = {file.as_posix() for file in found.files or ()}
    if _OUR_FILE in files:
        return True
    # An editable installation lists no file of the package; nor does the metadata of a clone that was never built.
    return not any(file.startswith("redisq/") for file in files)
