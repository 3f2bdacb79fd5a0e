"""`redisq workers`, `redisq shutdown`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from redisq.cli.output import print_json, say
from redisq.cli.target import Target, json_option, target_options
from redisq.redact import shown
from redisq.words import counted

__all__ = ["shutdown", "workers"]


@click.command()
@click.option("--running", is_flag=True, envvar="REDISQ_RUNNING", help="Show what runs, as the workers answer now.")
@json_option
@target_options
def workers(target: Target, running: bool, as_json: bool) -> None:
    """Show the workers: those that showed a sign of life in the last 15 seconds, and whether they answer now.

    One that blocks its event loop, or is frozen, does not answer. Workers of Celery, and other consumers of the kombu
    transport, are listed too, with the number of messages that they hold. They are not asked: `celery inspect` does that.

    With --json: {name: {"host", "pid", "app", "queues", "slots", "running", "ended", "started", "answers"}}; with --running
    also "runs": [{"id", "task", "queue", "attempt", "seconds"}], null when the worker does not answer. For consumers of the
    kombu transport "kombu" is true, and "slots", "ended" and "answers" are null.
    """
    control = target.app.control
    there = _merged(control.workers())
    answers = control.running()
    if as_json:
        print_json(
            {
                name: {
                    **about,
                    "answers": None if about.get("kombu") else name in answers,
                    **({"runs": answers.get(name)} if running else {}),
                }
                for name, about in there.items()
            }
        )
        return
    if not there:
        say("no workers")
    for name, about in there.items():
        age = max(time.time() - about.get("started", time.time()), 0)
        queues = ", ".join(about.get("queues", ()))
        if about.get("kombu"):
            held = f"{counted(about.get('running', 0), 'message')} held"
            say(shown(f"{name}  {about.get('app')}  pid {about.get('pid')}  {held}  up {age:.0f} s  {queues}", 400))
            continue
        state = "answers" if name in answers else "does not answer"
        say(
            shown(
                f"{name}  {state}  pid {about.get('pid')}  {about.get('running')}/{about.get('slots')} slots  "
                f"{about.get('ended')} ended  up {age:.0f} s  {queues}",
                400,
            )
        )
        if running:
            for run in answers.get(name, ()):
                since = "waits for a thread" if run["seconds"] is None else f"{run['seconds']:.1f} s"
                say(shown(f"  {run['id']}  {run['task']}  {run['queue']}  attempt {run['attempt']}  {since}", 400))


def _merged(there: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put the kombu connections of one process together. With gevent and eventlet, Celery has two: one for remote control."""
    merged: dict[str, dict[str, Any]] = {}
    by_process: dict[tuple[Any, Any], str] = {}
    # A worker whose name is known goes first; its other connections follow.
    for name, about in sorted(there.items(), key=lambda item: item[1].get("app") != "celery"):
        process = about.get("host"), about.get("pid")
        if about.get("kombu") and about.get("app") == "kombu" and process in by_process:
            known = merged[by_process[process]]
            queues = sorted({*known.get("queues", ()), *about.get("queues", ())})
            running = (known.get("running") or 0) + (about.get("running") or 0)
            merged[by_process[process]] = {**known, "queues": queues, "running": running}
            continue
        merged[name] = about
        if about.get("kombu"):
            by_process[process] = name
    return dict(sorted(merged.items()))


@click.command()
@click.argument("names", metavar="[WORKER]...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All workers.")
@json_option
@target_options
def shutdown(target: Target, names: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Ask workers to stop as at SIGTERM: running handlers finish, the rest is given back. Their supervisors start others.

    The exit code is 1 when one of those that were named did not answer.

    With --json: {"stopping": [name]}.
    """
    if bool(names) == everyone:
        raise click.UsageError("name workers (see `redisq workers`), or give --all")
    stopping = target.app.control.shutdown(names or None)
    if as_json:
        print_json({"stopping": stopping})
    else:
        say(f"stopping: {', '.join(stopping) or 'none'}")
    if missing := sorted(set(names) - set(stopping)):
        raise click.ClickException(f"no answer from: {', '.join(missing)}; `redisq workers` lists those that are there")
