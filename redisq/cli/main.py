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

#: The modules of those commands that have none of their own name.
_MODULES = {"resume": "pause", "shutdown": "workers"}


class _Commands(ErrorsInWords):
    """Imports a command when it is called. A worker that imported all of them would need 2 MB more."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command and return it, or None when there is none of that name."""
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"redisq.cli.{_MODULES.get(name, name)}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(redisq.__version__, prog_name="redisq")
def main() -> None:
    """A task queue for chat bots on Redis sorted sets."""
