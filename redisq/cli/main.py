"""`redisq`, the command."""

from __future__ import annotations

import click

import redisq
from redisq.cli.cancel import cancel
from redisq.cli.dead import dead
from redisq.cli.demo import demo
from redisq.cli.doctor import doctor
from redisq.cli.embedded import embedded
from redisq.cli.errors import ErrorsInWords
from redisq.cli.inspect import inspect
from redisq.cli.limits import limits
from redisq.cli.pause import pause, resume
from redisq.cli.purge import purge
from redisq.cli.repair import repair
from redisq.cli.send import send
from redisq.cli.status import status
from redisq.cli.worker import worker
from redisq.cli.workers import shutdown, workers

__all__ = ["main"]


@click.group(cls=ErrorsInWords, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(redisq.__version__, prog_name="redisq")
def main() -> None:
    """A task queue for chat bots on Redis sorted sets."""


for command in (
    cancel, dead, demo, doctor, embedded, inspect, limits, pause, purge, repair, resume, send, shutdown, status, worker, workers,
):  # fmt: skip
    main.add_command(command)
