from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click
import pytest
from click.testing import CliRunner

import redisq.cli
from redisq.cli.loader import load_app
from redisq.cli.main import main
from redisq.cli.worker import command_of, worker
from redisq.errors import ConfigError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with two apps, named anew for each test; the current folder."""
    name = f"bot_{tmp_path.name.replace('-', '_')}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / f"{name}.py").write_text(
        "from redisq import RedisQ\none = RedisQ('one')\nclass Holder:\n    two = RedisQ('two')\nnot_an_app = 1\n"
    )
    return name


def test_an_app_is_found_by_its_name_a_dotted_name_or_as_the_only_one(module: str) -> None:
    assert load_app(f"{module}:one").name == "one"
    assert load_app(f"{module}:Holder.two").name == "two"
    assert load_app(module).name == "one"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module_here:app", "no module 'no_such_module_here'"),
        ("{module}:not_an_app", "'not_an_app' is a .* and not a RedisQ app; module {module} has the app one"),
        ("{module}:nothing", "'nothing' is not there; module {module} has the app one"),
        (":app", "want module:app"),
    ],
)
def test_what_is_not_found_is_an_error_that_says_what_to_do(module: str, target: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.format(module=module)):
        load_app(target.format(module=module))


def test_an_import_error_inside_the_module_is_not_hidden(module: str) -> None:
    Path(f"{module}_broken.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load_app(f"{module}_broken:app")


def test_two_apps_in_one_module_must_be_told_apart(module: str) -> None:
    Path(f"{module}_two.py").write_text("from redisq import RedisQ\na = RedisQ('a')\nb = RedisQ('b')\n")
    with pytest.raises(ConfigError, match=rf"{module}_two has the apps a, b: say which, as in {module}_two:a"):
        load_app(f"{module}_two")


def test_module_without_an_app_gets_an_error_that_says_what_to_do(module: str) -> None:
    Path(f"{module}_none.py").write_text("import redisq\n")
    with pytest.raises(ConfigError, match=rf"{module}_none has no app: make one in it, app = RedisQ\(\.\.\.\), or name"):
        load_app(f"{module}_none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["worker"], "which app"),
        (["worker", "{module}:one"], "ConfigError: app one has no task"),
        (["worker", "nowhere:app"], "ConfigError: no module 'nowhere'"),
        (["worker", "{module}:one", "-c", "none"], "not a valid integer"),
    ],
)
def test_a_wrong_command_line_exits_with_words_and_no_traceback(module: str, arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, [argument.format(module=module) for argument in arguments])
    assert result.exit_code in (2, 78)
    assert says in result.output
    assert "Traceback" not in result.output


def test_each_flag_of_the_worker_has_a_variable() -> None:
    options = [option for option in worker.params if option.param_type_name == "option"]
    assert all(str(option.envvar).startswith("REDISQ_") for option in options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["bot:app"],
        ["-A", "bot:app", "-w", "2", "-b"],
        [
            "bot:app",
            "-Q",
            "a,b",
            "--queues",
            "-c",
            "-l",
            "debug",
            "--shutdown-timeout",
            "0.5",
            "-n",
            "- odd name",
            "--no-log-setup",
        ],
        ["bot:app", "-w2", "--max-tasks-per-child=10", "--health-port", "8080"],
    ],
)
def test_the_processes_of_a_supervisor_get_its_own_options(arguments: list[str]) -> None:
    mine = worker.make_context("worker", list(arguments))
    *program, name = command_of(mine)[:4]
    assert (program, name) == ([sys.executable, "-m", "redisq"], "worker")
    theirs = worker.make_context("worker", command_of(mine)[4:])
    assert theirs.params == mine.params


def test_a_mistyped_command_has_a_suggestion() -> None:
    result = CliRunner().invoke(main, ["wroker"])
    assert result.exit_code == 2
    assert "No such command 'wroker'" in result.output
    # Older versions of click suggest nothing.
    known = main.get_command(click.Context(main), "wroker")
    assert known is None
    assert "worker" in main.commands


def test_each_command_of_the_package_can_be_called() -> None:
    modules = [import_module(f"redisq.cli.{module.name}") for module in iter_modules(redisq.cli.__path__) if module.name != "main"]
    commands = [getattr(module, name) for module in modules for name in module.__all__]
    names = [command.name for command in commands if isinstance(command, click.Command)]
    assert sorted(names) == main.list_commands(click.Context(main))
    assert all(main.get_command(click.Context(main), name) for name in names)


def test_a_command_that_another_package_adds_is_found() -> None:
    group = type(main)("redisq")
    group.add_command(click.Command("theirs"))
    assert "theirs" in group.list_commands(click.Context(group))
    assert group.get_command(click.Context(group), "theirs")


def test_a_worker_imports_no_other_command() -> None:
    program = (
        "import sys; from redisq.cli.main import main; main(['worker', '--help'], standalone_mode=False);"
        "print(*(name for name in sys.modules if name.startswith(('redisq.cli.', 'redisq.demo', 'http.server'))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert "redisq.cli.worker" in imported
    assert not imported & {"redisq.cli.doctor", "redisq.cli.dead", "redisq.cli.demo", "redisq.demo", "http.server"}
