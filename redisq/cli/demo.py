"""`redisq demo`."""

from __future__ import annotations

from dataclasses import asdict

import click

from redisq.cli.output import print_json
from redisq.demo.run import run
from redisq.demo.show import Lines, Show, Silence
from redisq.demo.signals import Stopped

__all__ = ["demo"]


@click.command()
@click.option("--keep", is_flag=True, envvar="REDISQ_KEEP", help="Leave the demo's server running, to look at its dead letters.")
@click.option("--json", "as_json", is_flag=True, envvar="REDISQ_JSON", help="Print the end result as JSON, and nothing before it.")
def demo(keep: bool, as_json: bool) -> None:
    """Watch a chat bot answer 200 messages through a slow and flaky chat API.

    Messages of one chat are answered in order, all of them at 30 a second, and a 429 makes its chat wait.

    Starts a Redis of its own in a temporary folder, a chat API on a local port, and two workers, and ends them all. It
    takes about 15 s, needs no Redis and no network, and touches no queue of yours.

    With --json: {"messages", "answered", "answered_again", "retries", "workers_killed", "taken_back", "dead": [{"id",
    "chat_id", "reason", "attempts", "crashes", "error"}], "in_order", "out_of_order", "limited", "too_early",
    "busiest_second", "latency": {"p50", "p99"}, "priority_latency": {"p50", "p99"}, "seconds", "url"}.
    Latencies are in seconds; "url" is null without --keep.
    """
    show = Silence() if as_json else _show()
    try:
        result = run(show, keep=keep)
    except Stopped as stopped:
        click.echo("Stopped; all is cleaned up.", err=True)
        click.get_current_context().exit(128 + stopped.number)
    if as_json:
        print_json(asdict(result))
    else:
        show.end(result)


def _show() -> Show:
    """A live one on a terminal, if rich is there; else lines."""
    try:
        from rich.console import Console

        from redisq.demo.live import Live
    except ImportError:
        return Lines()
    console = Console()
    return Live(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
