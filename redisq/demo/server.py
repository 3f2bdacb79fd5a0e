"""The demo's own Redis: an embedded server in a temporary folder."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redisq.broker.embedded import Embedded

__all__ = ["own_server"]


@contextmanager
def own_server(keep: bool) -> Iterator[tuple[Embedded, str]]:
    """Start a server; give it and its `unix://` URL. Afterwards it is gone with all its files, unless it is to be kept.

    Raises:
        NoServer: There is no program for it, or it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="redisq-demo-")).resolve()
    server = Embedded(folder)
    log = logging.getLogger("redisq.embedded")
    level, kept = log.level, False
    # What it says at its start, that the server stays, would be wrong.
    log.setLevel(logging.ERROR)
    try:
        yield server, server.start_or_join()
        kept = keep
    finally:
        log.setLevel(level)
        if not kept:
            _remove(server)


def _remove(server: Embedded) -> None:
    server.stop()
    note = server.folder / "socket"
    if note.exists():  # the folder's path is too long for a socket, which has a folder of its own
        with suppress(OSError):
            Path(note.read_text()).parent.rmdir()
    shutil.rmtree(server.folder)
