"""What `redisq doctor` says of what it read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from redisq.broker import health
from redisq.broker.health import CHECKS, Finding, Level, judge
from redisq.broker.repair import Losses
from redisq.broker.scripts import SCRIPT_NAMES, Scripts
from redisq.broker.vitals import PROBES, Vitals
from redisq.cli.doctor import exit_code, worst_of
from redisq.cli.installation import installation, others_warning

OK, WARNING, ERROR = Level.OK, Level.WARNING, Level.ERROR

WELL = {
    "redis_version": "7.0.15",
    "cluster_enabled": "0",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "rdb_changes_since_last_save": "12",
    "maxmemory_policy": "noeviction",
    "maxmemory": "100000000",
    "used_memory": "1000000",
}


def vitals(**info: str) -> Vitals:
    return Vitals(info={**WELL, **info}, config={"save": "3600 1", "appendfsync": "everysec"}, queues={"chat_api": None})


def test_a_server_that_is_well_has_no_finding() -> None:
    findings = judge(vitals())
    assert {finding.level for finding in findings} == {OK}
    assert len(findings) == len(CHECKS) == len({finding.check for finding in findings})


@pytest.mark.parametrize(
    ("check", "info", "level", "says"),
    [
        ("version", {"redis_version": "4.0.14"}, ERROR, "Redis 4.0.14: redisq needs 5.0 or newer"),
        ("version", {"redis_version": "5.0.0"}, OK, "Redis 5.0.0"),
        ("version", {"redis_version": "10.1"}, OK, "Redis 10.1"),
        ("version", {"redis_version": "7.2.4", "valkey_version": "9.1.0"}, OK, "Valkey 9.1.0"),
        ("version", {"redis_version": ""}, WARNING, "may not run INFO"),
        ("cluster", {"cluster_enabled": "1"}, ERROR, "cluster_enabled:1: this is a node of a Redis Cluster"),
        ("role", {"role": "slave", "master_host": "db", "master_port": "6379"}, ERROR, "replica of db:6379: it refuses writes"),
        ("persistence", {"aof_enabled": "0"}, WARNING, "all since its last snapshot is lost (changes now: 12)"),
        ("persistence", {"aof_last_write_status": "err"}, ERROR, "the last write of the append-only file failed"),
        ("persistence", {"rdb_last_bgsave_status": "err"}, ERROR, "the last write of the snapshot failed"),
        ("eviction", {"maxmemory_policy": "allkeys-lru"}, ERROR, "it can evict whole queues; set noeviction"),
        ("eviction", {"maxmemory_policy": "allkeys-lfu"}, ERROR, "it can evict whole queues"),
        ("eviction", {"maxmemory_policy": "volatile-ttl"}, ERROR, "it can evict results, locks"),
        ("memory", {"maxmemory": "0"}, WARNING, "maxmemory is not set"),
        ("memory", {"used_memory": "95000000"}, WARNING, "95 of 100 MB used"),
    ],
)
def test_each_trouble_of_the_server_is_told(check: str, info: dict[str, str], level: Level, says: str) -> None:
    (finding,) = [finding for finding in judge(vitals(**info)) if finding.check == check]
    assert finding.level is level
    assert says in finding.text


@pytest.mark.parametrize(
    ("check", "read", "level", "says"),
    [
        (health.check_persistence, Vitals(WELL, config={"appendfsync": "always"}), OK, "nothing is lost"),
        (health.check_persistence, Vitals(WELL, config={"appendfsync": "everysec"}), OK, "at most a second"),
        (health.check_persistence, Vitals(WELL, config={"appendfsync": "no"}), WARNING, "set everysec"),
        (health.check_persistence, Vitals(WELL), OK, "appendonly is on"),
        (health.check_persistence, Vitals({**WELL, "aof_enabled": "0"}, config={"save": ""}), WARNING, "all messages are lost"),
        (health.check_persistence, Vitals(), OK, "unknown"),
        (health.check_eviction, Vitals(), OK, "unknown"),
        (health.check_memory, Vitals(), OK, "unknown"),
        (health.check_role, Vitals(), OK, "unknown"),
        (health.check_clock, Vitals(clock_ahead=0.9), OK, "900 ms"),
        (health.check_clock, Vitals(clock_ahead=1.1), WARNING, "1.1 s ahead of this machine's"),
        (health.check_clock, Vitals(clock_ahead=-90), WARNING, "90.0 s behind this machine's"),
        (health.check_scripts, Vitals(), OK, "all load"),
        (health.check_scripts, Vitals(scripts={"claim": "ERR no"}), ERROR, "not loaded: claim. claim: ERR no"),
        (health.check_scripts, Vitals(scripts_unchecked="no permissions"), OK, "the user may not run SCRIPT LOAD"),
        (
            health.check_messages,
            Vitals(losses={"q": Losses(waiting=1)}),
            ERROR,
            "q lost keys: 1 body in no state; run `redisq repair q`",
        ),
        (health.check_messages, Vitals(losses={"q": Losses(waiting=1, dead=2)}), ERROR, "3 bodies in no state"),
        (health.check_messages, Vitals(losses={"q": Losses(config=1, lanes=2)}), ERROR, "q lost keys: 1 config, 2 lanes; run"),
        (
            health.check_messages,
            Vitals(losses={"q": Losses(bodiless=2)}),
            ERROR,
            "q has 2 messages without a body, which cannot run; run `redisq repair q`, which makes them dead letters",
        ),
        (health.check_messages, Vitals(losses={"q": Losses(waiting=1, bodiless=1)}), ERROR, "repair q`; q has 1 message without"),
        (
            health.check_messages,
            Vitals(losses={"q": Losses(in_turn=3)}),
            ERROR,
            "q has 3 messages without a body in lanes that stop",
        ),
        (health.check_rights, Vitals(), OK, "name one with -Q"),
        (health.check_rights, Vitals(denied={"ZADD": "NOPERM x", "GET": ""}), ERROR, "may not run ZADD, GET. NOPERM x"),
        (health.check_rights, Vitals(denied={"XADD": "no", "ZADD": "why"}), ERROR, "may not run XADD, ZADD. why"),
        (health.check_rights, Vitals(denied={"XADD": "no"}), WARNING, "enough for producers and workers"),
        (
            health.check_rights,
            Vitals(denied={"PTTL": "no", "XADD": "no", "ZSCAN": "no"}),
            WARNING,
            "Celery and kombu need PTTL, XADD; an operator's commands need ZSCAN",
        ),
        (health.check_queues, Vitals(), OK, "none yet"),
        (health.check_queues, Vitals(queues={"a": None, "b": "QueueConflict"}), ERROR, "QueueConflict"),
    ],
)
def test_each_check_by_itself(check: Any, read: Vitals, level: Level, says: str) -> None:
    finding = check(read)
    assert finding.level is level
    assert says in finding.text


def test_of_a_clusters_node_nothing_else_is_said() -> None:
    assert [finding.check for finding in judge(vitals(cluster_enabled="1"))] == ["version", "cluster"]


def test_the_deployment_guide_names_every_command_that_is_probed() -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md"
    found = re.search(
        r"To allow single commands only(.*?)\n\n<!-- file: minimal.acl -->\n```text\n(.*)\n```", guide.read_text("utf-8"), re.S
    )
    assert found
    besides, rules = found.groups()
    named = {word.upper() for word in (*re.findall(r"`(\w+)`", besides), *re.findall(r"\+(\w+)", rules))}
    assert set(PROBES) <= named


def test_every_command_of_the_scripts_is_probed() -> None:
    scripts = Scripts()
    used = {command for name in SCRIPT_NAMES for command in re.findall(r"redis\.call\('(\w+)'", scripts[name].source)}
    assert used <= set(PROBES)


@pytest.mark.parametrize(
    ("levels", "strict", "code"),
    [
        ([OK], False, 0),
        ([OK], True, 0),
        ([OK, WARNING, OK], False, 0),
        ([WARNING, OK], True, 1),
        ([OK, ERROR, WARNING], False, 2),
        ([ERROR], True, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(levels: list[Level], strict: bool, code: int) -> None:
    assert exit_code(worst_of([Finding("x", level, "") for level in levels]), strict) == code


def test_the_installation_names_its_versions() -> None:
    assert re.match(r"redisq \S+, redis-py \d\S*, (no )?hiredis ", installation().text)


def installed(folder: Path, files: list[str], kind: str = "dist-info") -> list[str]:
    """The folder of packages in which a distribution `redisq` has these files."""
    info = folder / (f"redisq-3.1.{kind}" if kind == "dist-info" else f"redisq.{kind}")
    info.mkdir(parents=True)
    (info / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text("Metadata-Version: 2.1\nName: redisq\nVersion: 3.1\n")
    (info / ("RECORD" if kind == "dist-info" else "SOURCES.txt")).write_text("".join(f"{file}\n" for file in files))
    for file in files:  # of an egg-info those count that are there
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return [str(folder)]


def test_another_projects_package_of_our_name_is_a_warning(tmp_path: Path) -> None:
    paths = installed(tmp_path, ["redisq/__init__.py", "redisq/queue.py"])
    finding = installation(paths)
    assert finding.level is WARNING
    assert f"the package redisq 3.1 in {tmp_path}" in finding.text
    assert "pip uninstall redisq, then pip install --force-reinstall redisq-tasks" in finding.text


def test_another_projects_package_is_found_behind_a_clone_of_ours(tmp_path: Path) -> None:
    clone = installed(tmp_path / "clone", ["redisq/__init__.py", "redisq/broker/scripts.py"], "egg-info")
    others = installed(tmp_path / "site-packages", ["redisq/__init__.py"])
    assert others_warning(clone) == ""
    assert str(tmp_path / "site-packages") in others_warning(clone + others)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["redisq/__init__.py", "redisq/broker/scripts.py"], "dist-info"),
        (["redisq/__init__.py", "redisq/broker/scripts.py", "setup.cfg"], "egg-info"),
        (["__editable___redisq_0_1_0_finder.py", "redisq-0.1.0.dist-info/METADATA"], "dist-info"),
        ([], "egg-info"),
    ],
    ids=["ours under the old name", "a clone", "an editable clone", "a clone without a list of files"],
)
def test_a_clone_and_an_installation_of_ours_are_no_warning(files: list[str], kind: str, tmp_path: Path) -> None:
    assert installation(installed(tmp_path, files, kind)).level is OK


def test_this_installation_is_no_warning() -> None:
    assert others_warning() == ""
