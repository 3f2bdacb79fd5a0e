"""`redisq`, the command."""

from __future__ import annotations

from importlib import import_module

import click

import redisq
from redisq.cli.errors import ErrorsInWords

__all__ = ["main"]

_COMMANDS = (
    "cancel", "dead", "demo", "doctor", "embedded", "inspect", "limits", "pause", "purge", "repair", "resume", "send", "shutdown",
    "status", "worker", "workers",
)  # fmt: skip

#: The module of a command, where it has another name.
_MODULES = {"resume": "pause", "shutdown": "workers"}


class _Commands(ErrorsInWords):
    """Imports a command when it is called. A worker that imported all of them would need 2 MB more."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*_COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command and return it, or None when there is none of that name."""
        if name in self.commands:
            return self.commands[name]
        # For an unknown name click suggests similar ones, of all commands that it has.
        for each in (name,) if name in _COMMANDS else _COMMANDS:
            self.add_command(getattr(import_module(f"redisq.cli.{_MODULES.get(each, each)}"), each))
        return super().get_command(ctx, name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(redisq.__version__, prog_name="redisq")
def main() -> None:
    """A task queue for chat bots on Redis sorted sets."""
