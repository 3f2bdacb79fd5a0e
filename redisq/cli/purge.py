"""`redisq purge QUEUE`."""

from __future__ import annotations

import click

from redisq.broker.commands import QueueView, inspect
from redisq.broker.sweep import remove_all
from redisq.cli.confirm import confirmed, yes_option
from redisq.cli.output import print_json, say
from redisq.cli.target import Target, json_option, target_options
from redisq.words import counted

__all__ = ["purge"]

_STATES = ("waiting", "delayed", "retry", "dead")


def _states(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = [word for value in values for word in value.replace(",", " ").split()]
    for word in words:
        if word not in _STATES:
            raise click.BadParameter(f"{word!r}: want some of {', '.join(_STATES)}; what is processing is its worker's")
    return tuple(dict.fromkeys(words)) or _STATES[:3]


@click.command()
@click.argument("queue")
@click.option(
    "--state", "states", multiple=True, callback=_states, metavar="STATE,...",
    help="Only what is in these states: waiting, delayed, retry, dead. Default: waiting,delayed,retry.",
)  # fmt: skip
@yes_option
@json_option
@target_options
def purge(target: Target, queue: str, states: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete the messages of QUEUE that nobody runs. They are gone then.

    What is added meanwhile may stay. Messages that are being processed are left to their workers.

    With --json: {"queue", "states": [state], "removed": number}.
    """
    keys = target.queue(queue)
    view: QueueView = target.app.connector.execute(inspect(keys))
    counts = {state: int(getattr(view, state)) for state in states}
    total, removed = sum(counts.values()), 0
    if total:
        parts = ", ".join(f"{count} {state}" for state, count in counts.items())
        confirmed(f"Delete {counted(total, 'message')} ({parts}) of queue {queue}?", yes)
        removed = target.ask(remove_all(keys, states, "purged"))
    if as_json:
        print_json({"queue": queue, "states": list(states), "removed": removed})
    else:
        say(f"removed {counted(removed, 'message')} from queue {queue}")
