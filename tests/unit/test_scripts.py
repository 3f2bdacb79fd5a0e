"""The loader of the Lua scripts, and what every script's header must say."""

from __future__ import annotations

import re
from hashlib import sha1
from importlib.resources import files

import pytest

from redisq.broker.keys import EXCHANGE, FIXED, QueueKey
from redisq.broker.scripts import EXCHANGE_SCRIPTS, QUEUE_SCRIPTS, SCRIPT_NAMES, Scripts
from tests.clock import TEST_NOW
from tests.contracts.calls import CALLS as QUEUE_CALLS
from tests.contracts.calls import EXCHANGE_CALLS

FOLDER = files("redisq.broker").joinpath("lua")
SOURCES = {name: FOLDER.joinpath(f"{name}.lua").read_text() for name in SCRIPT_NAMES}
INCLUDES = {entry.name.removesuffix(".lua"): entry.read_text() for entry in FOLDER.joinpath("include").iterdir()}

CALLS = QUEUE_CALLS | EXCHANGE_CALLS

#: All that Redis 5.0 has and the scripts need.
COMMANDS = {
    "DEL", "EXISTS", "GET", "HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSCAN", "HSET",
    "HSETNX", "HSTRLEN", "HVALS", "MGET", "PERSIST", "PEXPIRE", "PEXPIREAT", "PTTL", "PUBLISH", "SET", "TIME", "TYPE", "UNLINK",
    "XADD", "XDEL", "XRANGE", "ZADD", "ZCARD", "ZCOUNT", "ZPOPMIN", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREM",
    "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZSCAN", "ZSCORE", "ZUNIONSTORE",
}  # fmt: skip

every_script = pytest.mark.parametrize("name", SCRIPT_NAMES)


def test_every_file_is_a_script_that_is_loaded() -> None:
    assert {entry.name for entry in FOLDER.iterdir() if entry.is_file()} == {f"{name}.lua" for name in SCRIPT_NAMES}


def test_every_include_is_used() -> None:
    used = {
        name for source in (*SOURCES.values(), *INCLUDES.values()) for name in re.findall(r"^--- @include (\w+)$", source, re.M)
    }
    assert used == set(INCLUDES)


@every_script
def test_a_script_is_named_by_its_sha(name: str) -> None:
    script = Scripts()[name]
    assert script.name == name
    assert script.sha == sha1(script.source.encode()).hexdigest()


@every_script
def test_nothing_is_left_to_include(name: str) -> None:
    assert "@include" not in Scripts()[name].source


@pytest.mark.parametrize("name", QUEUE_SCRIPTS)
@pytest.mark.parametrize("include", ["int", "keys", "refuse"])
def test_an_include_comes_once_however_often_it_is_asked_for(name: str, include: str) -> None:
    source = Scripts(includes={include: f"-- MARK {include}\n"})[name].source
    assert source.count(f"-- MARK {include}\n") == 1


def test_scripts_are_read_once_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery without a pool of connections makes one for each `delay`; and a program keeps its scripts while it is upgraded."""
    loaded = Scripts()
    monkeypatch.setattr("redisq.broker.scripts.files", None)
    assert all(Scripts()[name] is loaded[name] for name in SCRIPT_NAMES)


def test_an_include_stands_before_what_needs_it() -> None:
    source = Scripts()["claim"].source
    assert (
        source.index("local function int(") < source.index("local function open_queue(") < source.index("local function take_back(")
    )


def test_a_circle_of_includes_is_an_error_that_shows_it() -> None:
    with pytest.raises(ValueError, match="circle of includes: browse > queue > now > queue"):
        Scripts(includes={"now": "--- @include queue\n"})


def test_an_include_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lua"):
        Scripts(includes={"now": "--- @include nowhere\n"})


@every_script
def test_the_release_build_knows_no_clock_but_the_servers(name: str) -> None:
    source = Scripts()[name].source
    assert "testclock" not in source
    if "now_us" in source:
        assert source.count("redis.call('TIME')") == 1
        assert "testclock" in Scripts(includes={"now": TEST_NOW})[name].source


@every_script
def test_a_header_says_purpose_keys_arguments_and_reply(name: str) -> None:
    lines = SOURCES[name].splitlines()
    assert re.match(rf"--- {name}: \S.*\.", lines[0])
    whose, file, prefix = ("exchange", "exchange", "x") if name in EXCHANGE_SCRIPTS else ("queue", "keys", "p")
    assert f"--- KEYS: the {whose}'s fixed keys, in the order of include/{file}.lua" in lines
    assert any(re.match(rf"--- ARGV\[1\] prefix +string +\{{{prefix}\}}", line) for line in lines)
    assert any(re.match(r"--- Returns: \S", line) for line in lines)


@every_script
def test_a_header_numbers_its_arguments_without_a_gap(name: str) -> None:
    numbers = [int(number) for number in re.findall(r"^--- ARGV\[(\d+)(?:\.\.)?\]", SOURCES[name], re.M)]
    assert numbers == list(range(1, len(numbers) + 1))


@every_script
def test_every_argument_that_is_used_is_declared(name: str) -> None:
    header, body = re.match(r"((?:---.*\n)*)([\s\S]*)", SOURCES[name]).groups()  # type: ignore[union-attr]
    declared = {int(number) for number in re.findall(r"ARGV\[(\d+)", header)}
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body)}
    assert used <= declared
    assert "KEYS[" not in body


@every_script
def test_a_numbered_call_declares_its_caller(name: str) -> None:
    declared = re.findall(r"^--- ARGV\[[23]\] (\w+)", SOURCES[name], re.M)
    assert (declared == ["caller", "number"]) == CALLS[name].numbered == ("@include ledger" in SOURCES[name])


@pytest.mark.parametrize(("include", "fixed"), [("keys", FIXED), ("exchange", EXCHANGE)], ids=["keys", "exchange"])
def test_the_keys_have_the_order_that_python_sends_them_in(include: str, fixed: tuple[QueueKey, ...]) -> None:
    source = INCLUDES[include]
    names = [name.strip() for line in re.findall(r"^local (.*) = KEYS", source, re.M) for name in line.split(",")]
    numbers = [int(number) for number in re.findall(r"KEYS\[(\d+)\]", source)]
    assert names == [key.name.upper() for key in fixed]
    assert numbers == list(range(1, len(fixed) + 1))


@every_script
def test_a_script_uses_only_commands_of_redis_5_and_no_library(name: str) -> None:
    source = Scripts()[name].source
    assert set(re.findall(r"\b(?:redis\.call|on|attempt)\('(\w+)'", source)) <= COMMANDS
    passed_on = source.count("redis.call(command, key, ...)")
    assert source.count("redis.call(") - passed_on == len(re.findall(r"redis\.call\('\w+'", source))
    assert not re.search(r"\b(cmsgpack|cjson|struct|bit|math\.random)\b", source)


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_goes_on_after_no_error_but_one_of_publish_or_of_a_type_that_it_puts_right(name: str) -> None:
    # A failed command must end the script, or it would write half of a change. A hint that cannot be published must not, nor a
    # flow of another type, which is met after the first write (`on` and `attempt`, in lua/include/gates.lua).
    source = Scripts()[name].source
    assert source.count("redis.pcall") == source.count("redis.pcall('PUBLISH'") + source.count(
        "local attempt, type_of = redis.pcall, type"
    )
    for after in re.findall(r"\battempt\(.*\n(.*)", source):
        assert "mended(" in after or ".err then" in after
    assert "redis.call('PUBLISH'" not in source


@pytest.mark.parametrize("name", INCLUDES)
def test_an_include_says_what_it_is(name: str) -> None:
    assert INCLUDES[name].startswith(f"--- {name}: ")
