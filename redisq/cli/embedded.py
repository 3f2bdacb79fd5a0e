"""`redisq embedded status|stop`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from redisq.broker.embedded import Embedded
from redisq.errors import RedisqError

__all__ = ["embedded"]


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    which = click.option(
        "--url", default="embedded://", show_default=True, envvar="REDISQ_URL",
        help="embedded:// is the server of the current folder, embedded:///folder that of another.",
    )  # fmt: skip
    as_json = click.option("--json", "as_json", is_flag=True, envvar="REDISQ_JSON", help="For programs.")
    return which(as_json(command))


def _server(url: str) -> Embedded:
    if not url.startswith("embedded:"):
        raise click.UsageError("REDISQ_URL, or --url, names no embedded server; say --url embedded://")
    return Embedded.of(url)


@click.group()
def embedded() -> None:
    """Look at and stop the private server behind embedded://."""


@embedded.command()
@_options
def status(url: str, as_json: bool) -> None:
    """Say whether the server runs, and what it holds."""
    try:
        found = _server(url).status()
    except (RedisqError, OSError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    if not found.running:
        click.echo("not running")
    elif found.version is None:
        click.echo(f"running, process {found.pid}, but it does not answer")
    else:
        click.echo(f"running, process {found.pid}, {found.version}")
        click.echo(f"keys    {found.keys}, in {(found.memory_bytes or 0) / 1e6:.1f} MB of memory")
    if found.socket:
        click.echo(f"socket  {found.socket}")
    click.echo(f"folder  {found.folder}")


@embedded.command()
@_options
def stop(url: str, as_json: bool) -> None:
    """End the server. Its data stay, and the next process that needs it starts it again."""
    try:
        server = _server(url)
        stopped = server.stop()
    except (RedisqError, OSError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None
    if as_json:
        click.echo(json.dumps({"stopped": stopped, "folder": str(server.folder)}))
    else:
        click.echo(f"{'stopped' if stopped else 'was not running'}; its data are in {server.folder}")
