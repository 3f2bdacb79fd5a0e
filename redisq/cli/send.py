"""`redisq send NAME`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from redisq.cli.output import print_json, say
from redisq.cli.target import Target, json_option, target_options

__all__ = ["send"]


def _json(wanted: type, name: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A JSON value of one type. Errors do not repeat it: it may be private."""

    def read(_ctx: click.Context, _param: click.Parameter, text: str) -> Any:
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise click.BadParameter(f"not JSON: {error.msg} at character {error.pos + 1}") from None
        except (RecursionError, ValueError):
            raise click.BadParameter("nested too deep, or a number of too many digits") from None
        if not isinstance(value, wanted):
            raise click.BadParameter(f"want {name}")
        return value

    return read


@click.command()
@click.argument("name")
@click.option(
    "--args", default="[]", callback=_json(list, "a JSON array"), metavar="JSON", envvar="REDISQ_ARGS",
    help='The positional arguments, e.g. [42, "hi"].',
)  # fmt: skip
@click.option(
    "--kwargs", default="{}", callback=_json(dict, "a JSON object"), metavar="JSON", envvar="REDISQ_KWARGS",
    help='The named arguments, e.g. {"chat_id": 42}.',
)  # fmt: skip
@click.option(
    "-Q", "--queue", metavar="QUEUE", envvar="REDISQ_QUEUE", help="The queue. Default: the task's; without an app it must be given."
)
@click.option("--countdown", type=float, metavar="SECONDS", envvar="REDISQ_COUNTDOWN", help="Run it so many seconds from now.")
@click.option("--priority", type=int, metavar="0-255", envvar="REDISQ_PRIORITY", help="Higher first. Default: the task's.")
@click.option("--key", metavar="KEY", envvar="REDISQ_KEY", help="Its lane. Default: as the task says.")
@click.option("--dedupe-key", metavar="KEY", envvar="REDISQ_DEDUPE_KEY", help="Once at the door. Default: as the task says.")
@json_option
@target_options
def send(
    target: Target,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    queue: str | None,
    countdown: float | None,
    priority: int | None,
    key: str | None,
    dedupe_key: str | None,
    as_json: bool,
) -> None:
    """Send a call of the task NAME, and print its job's id.

    With an app, the arguments are checked against the task, and its lane and limits hold. A task that the app does not have
    needs -Q. A call that another one stands for (a dedupe key) prints the id of that one's job.

    With --json: {"id", "task", "queue"}.
    """
    if not target.named and not queue:
        raise click.UsageError("which queue? Name one with -Q, or the app with -A module:app")
    options = {"queue": queue, "countdown": countdown, "priority": priority, "key": key, "dedupe_key": dedupe_key}
    if not queue or name in target.app.tasks:
        job = target.app.find_task(name).apply_async(args, kwargs, **options)
    else:
        job = target.app.send(name, args, kwargs, **options)
    if as_json:
        print_json({"id": job.id, "task": job.task, "queue": job.queue})
    else:
        say(job.id)
