from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from redisq.cli.main import main
from redisq.cli.output import print_table, span
from redisq.words import counted


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"), (0.25, "0.2 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (60, "1 min"), (125, "2 min 5 s"),
        (3600, "1 h"), (3661, "1 h 1 min"), (86_400, "1 d"), (86_460, "1 d"), (90_061, "1 d 1 h"), (-125, "-2 min 5 s"),
    ],
)  # fmt: skip
def test_a_length_of_time_has_two_units_at_most(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_one_and_many() -> None:
    assert [counted(count, "message") for count in (0, 1, 2)] == ["0 messages", "1 message", "2 messages"]


def test_columns_are_aligned_and_nothing_breaks_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "n"), [("a\nb\x1b[2J", 5), ("c", 12345)])
    assert capsys.readouterr().out == "name               n\na\\x0ab\\x1b[2J      5\nc              12345\n"


def _commands(group: click.Group, path: str = "redisq") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            found += _commands(command, f"{path} {name}")
        found.append((f"{path} {name}", command))
    return found


#: Flags of commands that delete messages, stop workers or run work twice: what to do it to, and not to ask or to refuse.
DESTRUCTIVE = {"yes", "all_", "everyone", "states", "force"}


@pytest.mark.parametrize(("path", "command"), _commands(main))
def test_each_command_has_help_and_each_harmless_flag_a_variable(path: str, command: click.Command) -> None:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"])
    assert result.exit_code == 0
    assert command.help
    options = [option for option in command.params if isinstance(option, click.Option)]
    # What a variable says would hold for every command that somebody types later: it must not choose what is deleted or stopped.
    named = [option for option in options if option.name not in DESTRUCTIVE]
    assert all(str(option.envvar).startswith("REDISQ_") for option in named)
    assert all(option.envvar is None for option in options if option not in named)
    assert all(option.help is None or option.help.endswith(".") for option in options)


def test_the_commands_are_these() -> None:
    wanted = {"status", "inspect", "dead", "purge", "cancel", "send", "doctor", "worker", "embedded"}
    assert wanted <= set(main.list_commands(click.Context(main)))
