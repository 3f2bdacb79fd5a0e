"""`redisq pause QUEUE`, `redisq resume QUEUE`."""

from __future__ import annotations

import click

from redisq.cli.output import print_json, say
from redisq.cli.target import Target, json_option, target_options

__all__ = ["pause", "resume"]


@click.command()
@click.argument("queue")
@json_option
@target_options
def pause(target: Target, queue: str, as_json: bool) -> None:
    """Let no worker take messages from QUEUE. What runs goes on, what is sent waits.

    With --json: {"queue", "paused": true}.
    """
    target.app.control.pause(target.queue(queue).queue)
    _report(queue, True, as_json)


@click.command()
@click.argument("queue")
@json_option
@target_options
def resume(target: Target, queue: str, as_json: bool) -> None:
    """Let workers take messages from QUEUE again.

    With --json: {"queue", "paused": false}.
    """
    target.app.control.resume(target.queue(queue).queue)
    _report(queue, False, as_json)


def _report(queue: str, paused: bool, as_json: bool) -> None:
    if as_json:
        print_json({"queue": queue, "paused": paused})
    else:
        say(f"queue {queue} {'is paused' if paused else 'goes on'}")
