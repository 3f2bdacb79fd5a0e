"""The embedded server: a private real server on a Unix socket, one for each folder, shared by all who name the folder.

What is in the folder, next to the server's data:

    start.lock     locked by who starts or stops the server, so that racing processes make one
    server.pid     the server's process number; locked by the server itself for as long as it lives
    server.log     what the server prints
    redis.sock     the socket, or else:
    socket         the socket's path, when the folder's own path is too long for one
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisq.broker.embedded_binary import REMEDIES, Binary, find_binary
from redisq.broker.own_folder import who_else
from redisq.clocks import monotonic
from redisq.errors import ConfigError, NoServer
from redisq.logs import get_logger

if sys.platform != "win32":
    import fcntl

__all__ = ["Embedded", "Status", "default_folder", "named_folder"]

log = get_logger("redisq.embedded")

#: Seconds without a word from a server that starts, or that should end.
PATIENCE = 20.0

#: Bytes of a socket's path: macOS takes 104 with the last one zero, Linux 108.
LONGEST_PATH = 103

# The shell starts the server and ends, so the server is no child of ours: nothing to reap, nothing that ends with us.
_LAUNCH = '"$@" >>server.log 2>&1 & echo $! >server.pid'


def named_folder(url: str) -> Path | None:
    """Return the folder that `embedded:///folder` names, or None for `embedded://`, the current project's.

    Raises:
        ConfigError: The URL says something else.
    """
    parts = urlsplit(url)
    if not url.startswith("embedded://") or parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"URL {url!r}: want embedded://, or embedded:///absolute/folder, and nothing else")
    return Path(unquote(parts.path)) if parts.path else None


def default_folder(project: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a project (a folder with code): under the user's state folder, named after the project.

    Raises:
        ConfigError: The user has no home.
    """
    state = environ.get("XDG_STATE_HOME")
    if not state or not Path(state).is_absolute():
        try:
            state = str(Path.home() / ".local" / "state")
        except RuntimeError:
            raise ConfigError("embedded://: this user has no home folder; name one, embedded:///absolute/folder") from None
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", project.name)[:40]
    return Path(state) / "redisq" / "embedded" / f"{name}-{hashlib.sha256(os.fsencode(project)).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a folder's server; None: not known, for it does not run or does not answer.

    Attributes:
        running: Whether its process lives.
        folder: Where its data are.
        socket: The path of its socket.
        pid: Its process number.
        version: Vendor and version, e.g. "Valkey 9.1.2".
        memory_bytes: That its data take.
        keys: In all its databases.
    """

    running: bool
    folder: str
    socket: str | None = None
    pid: int | None = None
    version: str | None = None
    memory_bytes: int | None = None
    keys: int | None = None


class Embedded:
    """The server of one folder.

    Args:
        folder: Where its data, locks and log are. Made, for this user alone, when the server is first wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "server.log"
        self._pid_file = folder / "server.pid"
        self._start_lock = folder / "start.lock"
        self._socket_note = folder / "socket"

    @classmethod
    def of(cls, url: str) -> Embedded:
        """Return the server that `embedded://` (for the current folder) or `embedded:///folder` means.

        Raises:
            ConfigError: The URL says something else.
        """
        return cls((named_folder(url) or default_folder(Path.cwd())).resolve())

    @property
    def url(self) -> str:
        """The `embedded:///folder` that means this server wherever it is said."""
        return f"embedded://{quote(os.fsencode(self.folder))}"

    def start_or_join(self) -> str:
        """Return the `unix://` URL of the server, which answers; start it when it does not run.

        Blocks: a fraction of a millisecond to join, up to half a second to start, once.

        Raises:
            NoServer: It cannot be started, or lives and does not answer, or others could stand in for it.
        """
        if sys.platform == "win32":
            raise NoServer("embedded:// needs Unix sockets; set REDISQ_URL to a Redis that runs, e.g. redis://localhost:6379/0")
        try:
            self._make_folder()
            path = self._socket()
            if path is None or who_else(path.parent) or not _is_ready(_ask(path)):
                path = self._start()
        except OSError as error:
            raise NoServer(f"the embedded server in {self.folder} cannot be started: {error}. Else: {REMEDIES}") from error
        return f"unix://{quote(os.fsencode(path))}"

    def status(self) -> Status:
        """Return what is known of the server. Starts nothing.

        Raises:
            NoServer: Others than this user could have put the folder's files there.
        """
        folder = str(self.folder)
        if not self._lives():
            return Status(False, folder)
        self._check_folder()
        path, pid = self._socket(), self._pid()
        if path is None or who_else(path.parent):
            return Status(True, folder, str(path) if path else None, pid)
        client = redis.Redis(unix_socket_path=str(path), protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        try:
            with client:
                info = client.info()
        except redis.RedisError:
            return Status(True, folder, str(path), pid)
        valkey = info.get("valkey_version")
        version = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
        keys = sum(value["keys"] for name, value in info.items() if re.fullmatch(r"db\d+", name))
        return Status(True, folder, str(path), pid, version, info["used_memory"], keys)

    def stop(self) -> bool:
        """End the server, wait until it is gone, and say whether it ran. Its data stay, for the next start.

        Raises:
            NoServer: It does not end, or others than this user could have put the folder's files there.
        """
        if not self._lives():
            return False
        self._check_folder()
        with self._alone():
            pid = self._pid()
            # The number is that of a living server and of nothing else: the server holds the lock on the file it stands in.
            if pid and self._lives():
                os.kill(pid, signal.SIGTERM)
            deadline = monotonic() + PATIENCE
            while self._lives():
                if monotonic() > deadline:
                    raise NoServer(f"the embedded server in {self.folder} does not end; the last resort: kill -KILL {pid}")
                time.sleep(0.005)
            if path := self._socket():
                path.unlink(missing_ok=True)
        return True

    def _start(self) -> Path:
        launched: Binary | None = None
        with self._alone():
            path = self._place_socket()
            deadline = monotonic() + PATIENCE
            while not _is_ready(answer := _ask(path)):
                if answer:
                    deadline = monotonic() + PATIENCE  # it is reading its data
                if not launched:
                    launched = self._launch(path)
                elif not self._lives():
                    raise NoServer(f"the embedded server in {self.folder} ended at once; its log ends:\n{self._log_tail()}")
                if monotonic() > deadline:
                    raise NoServer(
                        f"the embedded server in {self.folder} (process {self._pid()}) lives but does not answer;"
                        f" to end it: redisq embedded stop --url {self.url}"
                    )
                time.sleep(0.005)
        if launched:
            # A warning: a process that stays behind should be known also where nobody has set up logging.
            log.warning(
                "Started an embedded server (%s %s, process %s, data in %s). It goes on when this process ends;"
                " to stop it: redisq embedded stop --url %s",
                launched.path, launched.version, self._pid(), self.folder, self.url,
            )  # fmt: skip
        return path

    def _launch(self, path: Path) -> Binary | None:
        """Start the program, or do nothing while another lives, be its socket gone: two would spoil the data."""
        lock = os.open(self._pid_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_lock(lock, fcntl.LOCK_EX):
                return None
            binary = find_binary()
            path.unlink(missing_ok=True)
            options = (
                "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(self.folder),
                "--appendonly", "yes", "--save", "", "--daemonize", "no",
            )  # fmt: skip
            subprocess.run(  # noqa: S603  no shell text is built: the shell gets the options as its arguments
                ["/bin/sh", "-c", _LAUNCH, "sh", binary.path, *options],
                cwd=self.folder, start_new_session=True, pass_fds=(lock,), check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            return binary
        finally:
            os.close(lock)  # ours; the server has inherited it, and with it the lock

    def _lives(self) -> bool:
        try:
            lock = os.open(self._pid_file, os.O_RDONLY | os.O_NONBLOCK)  # never waits, be it a pipe that others put there
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from starting and stopping."""
        lock = os.open(self._start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_folder()

    def _check_folder(self) -> None:
        if others := who_else(self.folder):
            raise NoServer(
                f"{self.folder} is not this user's alone: {others}. chmod 700 it, or name a folder of yours that is not there yet"
            )

    def _socket(self) -> Path | None:
        path = self.folder / "redis.sock"
        if len(os.fsencode(path)) <= LONGEST_PATH:
            return path
        try:
            return Path(os.fsdecode(self._socket_note.read_bytes()))
        except FileNotFoundError:
            return None

    def _place_socket(self) -> Path:
        """The socket's path, which stays the same from start to start: waiting workers find the next server by it."""
        path = self._socket()
        others = who_else(path.parent) if path else ""
        if path is None or others:
            if self._lives():
                why = others or "its socket is unknown"
                raise NoServer(
                    f"the embedded server in {self.folder} (process {self._pid()}) is not joined: {why}."
                    f" To end it, so that the next start takes another folder for its socket: redisq embedded stop --url {self.url}"
                )
            path = Path(tempfile.mkdtemp(prefix="redisq-")).resolve() / "redis.sock"
            if others := who_else(path.parent):
                path.parent.rmdir()
                raise NoServer(f"there is no safe place for the socket of {self.folder}: {others}. Set TMPDIR to a folder of yours")
            self._socket_note.write_bytes(os.fsencode(path))
        return path

    def _pid(self) -> int | None:
        text = self._pid_file.read_text().strip()
        return int(text) if text.isdigit() else None

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-10:])


def _ask(path: Path) -> bytes:
    """Say PING; return the answer, or nothing. A bare socket: no client's retries, and an error is an answer too."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1)
        try:
            line.connect(os.fsencode(path))
            line.sendall(b"PING\r\n")
            return line.recv(100)
        except OSError:
            return b""


def _is_ready(answer: bytes) -> bool:
    return bool(answer) and not answer.startswith(b"-LOADING")


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
