"""`redisq status`."""

from __future__ import annotations

import math
from collections.abc import Collection

import click

from redisq.app.limits import seconds_or_none
from redisq.broker.commands import QueueView
from redisq.broker.held_back import HeldBack, held_back
from redisq.broker.overview import overview
from redisq.broker.registry import present
from redisq.broker.service import Service, is_served, served_queues
from redisq.cli.errors import in_words
from redisq.cli.output import print_json, print_table, say, span
from redisq.cli.target import Target, is_internal, json_option, queues_option, target_options
from redisq.errors import AccessDenied, BrokerError
from redisq.words import counted

__all__ = ["status"]

_COLUMNS = ("queue", "waiting", "delayed", "retry", "processing", "dead", "paused", "oldest")


@click.command()
@click.argument("app_argument", metavar="[MODULE:APP]", required=False)
@queues_option
@click.option(
    "--all", "internal", is_flag=True, envvar="REDISQ_STATUS_ALL", help="Also the queues of Celery's remote control and events."
)
@json_option
@target_options
def status(target: Target, internal: bool, as_json: bool) -> None:
    """Show how many messages each queue has, in which states, and its counters.

    The queues are those of -Q, else those of the app, else all that are found in Redis, without those that Celery has for
    remote control and events. The exit code is 1 when one of them cannot be read.

    With --json: {"namespace", "queues": [{"queue", "waiting", "delayed", "retry", "processing", "dead", "paused",
    "oldest_age", "overdue", "overdue_age", "expired", "expired_age", "served", "stateless", "bodiless", "held_back",
    "pauses": {limit or @lane: seconds}, "stats": {counter: number}}]}. "oldest_age" is for how long the oldest message that
    could run does not: it waits, is "overdue" in delayed or retry, or its lease "expired" and nobody took it back. Ages are
    in seconds, null where there is none. "served": whether a living worker serves the queue, null for a user who may not
    ask; "stateless" are messages that redisq repair puts back into a state; "bodiless" are messages whose body is gone, at
    least; "held_back" are the lanes that wait at a limit; a pause without end has null. A queue that cannot be read has
    "error" in place of all but its name.
    """
    queues = target.at_risk()
    shown = queues if internal or target.chosen else [keys for keys in queues if not is_internal(keys)]
    rows = target.ask(overview(shown))
    served = _served(target)
    held = target.ask(held_back([keys for keys, view in rows if isinstance(view, QueueView)]))
    gates = {keys.queue: each for keys, each in held.items()}
    views = {keys.queue: view for keys, view in rows if isinstance(view, QueueView)}
    errors = {keys.queue: view for keys, view in rows if isinstance(view, BrokerError)}
    if as_json:
        told: list[dict[str, object]] = [
            {
                "queue": queue,
                **view._asdict(),
                "served": None if served is None else is_served(queue, view, served),
                **_gates(gates.get(queue)),
            }
            for queue, view in views.items()
        ]
        told += [{"queue": queue, "error": in_words(error)} for queue, error in errors.items()]
        print_json({"namespace": target.app.settings.namespace, "queues": told})
    else:
        if views or not errors:
            _print(views, gates, served)
        if len(shown) < len(queues):
            say(f"{counted(len(queues) - len(shown), 'queue')} of Celery's remote control and events not shown (--all)")
        for error in errors.values():
            say(f"Error: {in_words(error)}", err=True)
    if errors:
        click.get_current_context().exit(1)


def _served(target: Target) -> Collection[str] | None:
    """The queues that workers say they serve; None: the user may not read it."""
    try:
        return served_queues(target.ask(present(target.app.registry, forget=False)))
    except AccessDenied:
        return None


def _gates(held: HeldBack | None) -> dict[str, object]:
    if held is None:
        return {"held_back": None, "pauses": None}
    return {"held_back": held.blocked, "pauses": {name: seconds_or_none(seconds) for name, seconds in held.pauses.items()}}


def _print(views: dict[str, QueueView], gates: dict[str, HeldBack], served: Collection[str] | None) -> None:
    if not views:
        say("no queues")
        return
    print_table(_COLUMNS, [_row(queue, view) for queue, view in views.items()])
    for queue, view in views.items():
        if view.stateless:
            say(f"{queue}: {counted(view.stateless, 'message')} in no state, a key was lost: redisq repair {queue}")
        if view.bodiless:
            say(f"{queue}: {counted(view.bodiless, 'message')} without a body, which cannot run: redisq repair {queue}")
        if view.overdue:
            say(f"{queue}: {counted(view.overdue, 'message')} overdue, the first by {span(view.overdue_age or 0.0)}")
        if view.expired:
            ended = span(view.expired_age or 0.0)
            say(f"{queue}: {counted(view.expired, 'message')} whose lease ended, the first {ended} ago, waits to be taken back")
        if served is not None and Service(view, is_served(queue, view, served)).is_left_alone:
            say(f"{queue}: no living worker serves it: redisq workers")
    for queue, held in gates.items():
        if held.blocked:
            say(f"{queue}: {counted(held.blocked, 'lane')} held back by limits: redisq limits list -Q {queue}")
        for name, seconds in held.pauses.items():
            what = f"lane {name[1:]}" if name.startswith("@") else f"limit {name}"
            say(f"{queue}: {what} is paused " + ("until it is resumed" if math.isinf(seconds) else f"for {span(seconds)}"))
    for queue, view in views.items():
        if view.stats:
            click.echo()
            say(f"{queue}: counters since it was made")
            for name, value in sorted(view.stats.items()):
                say(f"  {name}  {value}")


def _row(queue: str, view: QueueView) -> tuple[object, ...]:
    oldest = "-" if view.oldest_age is None else span(max(0.0, view.oldest_age))
    return (queue, *view[:5], "yes" if view.paused else "no", oldest)
