"""`redisq pause QUEUE`, `redisq resume QUEUE`: the queue, or one of its lanes or limits."""

from __future__ import annotations

import click

from redisq.cli.output import print_json, say, span
from redisq.cli.target import Target, json_option, target_options

__all__ = ["for_option", "pause", "resume"]

_limit_option = click.option(
    "--limit", metavar="NAME", envvar="REDISQ_LIMIT_NAME", help="Only what needs this limit: bot, or its instance: chat:42."
)
_lane_option = click.option("--lane", metavar="KEY", envvar="REDISQ_LANE", help="Only the lane of this key.")
for_option = click.option(
    "--for", "seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS", envvar="REDISQ_FOR",
    help="For so long. Default: until it is resumed.",
)  # fmt: skip


@click.command()
@click.argument("queue")
@_limit_option
@_lane_option
@for_option
@json_option
@target_options
def pause(target: Target, queue: str, limit: str | None, lane: str | None, seconds: float | None, as_json: bool) -> None:
    """Let no worker take messages from QUEUE. What runs goes on, what is sent waits.

    With --limit or --lane, only those that need this limit, or are in this lane; --for is for these.

    With --json: {"queue", "limit", "lane", "paused": true}.
    """
    target.app.control.pause(target.queue(queue).queue, limit=limit, lane=lane, seconds=seconds)
    _report(queue, limit, lane, True, as_json, "" if seconds is None else f" for {span(seconds)}")


@click.command()
@click.argument("queue")
@_limit_option
@_lane_option
@json_option
@target_options
def resume(target: Target, queue: str, limit: str | None, lane: str | None, as_json: bool) -> None:
    """Let workers take messages from QUEUE again, or those of a limit or a lane.

    With --json: {"queue", "limit", "lane", "paused": false}.
    """
    target.app.control.resume(target.queue(queue).queue, limit=limit, lane=lane)
    _report(queue, limit, lane, False, as_json, "")


def _report(queue: str, limit: str | None, lane: str | None, paused: bool, as_json: bool, length: str) -> None:
    if as_json:
        print_json({"queue": queue, "limit": limit, "lane": lane, "paused": paused})
        return
    what = (
        f"queue {queue}" if limit is None and lane is None else f"{f'limit {limit}' if limit else f'lane {lane}'} of queue {queue}"
    )
    say(f"{what} {'is paused' + length if paused else 'goes on'}")
