"""`redisq`, the command."""

from __future__ import annotations

import click

import redisq
from redisq.cli.embedded import embedded
from redisq.cli.worker import worker

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(redisq.__version__, prog_name="redisq")
def main() -> None:
    """A task queue for chat bots on Redis sorted sets."""


main.add_command(embedded)
main.add_command(worker)
