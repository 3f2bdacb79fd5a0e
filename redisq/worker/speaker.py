"""A child's end of the pipe: its answers, and what its handlers say of their progress in between."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import msgpack

from redisq.app.progress import Progress

__all__ = ["Speaker"]

#: Seconds between two words on progress: the parent writes them no oftener.
INTERVAL = 0.25


class Speaker:
    """Writes to the pipe. Of what is said in quick succession only the last goes out, and it does go out.

    Args:
        pipe: To the parent.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._latest: tuple[str, Progress] | None = None
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, job_id: str, progress: Progress) -> None:
        """Take a handler's last word. Safe to call from any thread."""
        self._latest = job_id, progress
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._speak, name="redisq-progress", daemon=True)
            self._thread.start()

    def answer(self, answer: bytes) -> None:
        """Send a request's answer, or how far it is, after the last word on its progress."""
        with self._lock:
            self._send_latest()
            self._pipe.send_bytes(answer)

    def _speak(self) -> None:
        # Without the parent there is nobody to speak to, and this process ends.
        with suppress(OSError):
            while self._news.wait():
                self._news.clear()
                with self._lock:
                    self._send_latest()
                time.sleep(INTERVAL)

    def _send_latest(self) -> None:
        said, self._latest = self._latest, None
        if said:
            job_id, progress = said
            self._pipe.send_bytes(msgpack.packb(["progress", job_id, *progress]))
