"""`redisq inspect JOB`."""

from __future__ import annotations

import click

from redisq.broker.held_back import gates_of
from redisq.broker.overview import finished
from redisq.cli.output import print_json, say
from redisq.cli.report import find_place, print_report, report, told_progress, unknown_job
from redisq.cli.target import Target, json_option, queues_option, target_options

__all__ = ["inspect"]

show_args_option = click.option(
    "--show-args", is_flag=True, envvar="REDISQ_SHOW_ARGS",
    help="Show the arguments too, with what looks like a secret replaced. They may be private.",
)  # fmt: skip


@click.command()
@click.argument("job")
@queues_option
@show_args_option
@json_option
@target_options
def inspect(target: Target, job: str, show_args: bool, as_json: bool) -> None:
    """Show where the message of JOB is, and what happened to it so far. JOB may be a task id of Celery.

    Without -Q, all queues are looked through. The exit code is 1 when none of them has it.

    With --json: {"id", "celery_id", "queue", "state", "position", "task", "lane", "lane_position", "lane_holder", "limits",
    "waits_at", "attempt", "crashes", "parks", "requeues", "reason", "error", "worker", "due", "age", "lease", "size", "progress",
    "unreadable", "args_count", "kwargs_count"}, and "args" and "kwargs" with --show-args. "progress" is what the handler said last:
    {"done", "total", "note", "attempt"}. "due" and "lease" are the seconds until then, "age" those since it waits or is
    dead, "size" is in bytes, "lane_position" is its place in its lane, "lane_holder" the job that was started there and has
    not ended, "waits_at" the limit that holds it, or its lane, back; what does not apply is null. "state" is waiting,
    delayed, retry, processing or dead; or done, with "queue" and "progress" alone, when the result is kept.
    "stack", of a dead letter, has the frames in which its error was raised, the innermost last.
    """
    place = find_place(target, job)
    if place:
        said = target.app.job(place.id, queue=place.keys.queue).progress()
        gates = target.ask(gates_of(place.keys, place.id))
        fields = report(place, show_args=show_args, progress=said, gates=gates, max_bytes=target.app.settings.max_bytes)
        if as_json:
            print_json(fields)
        else:
            print_report(fields)
        return
    done = target.ask(finished(target.everywhere(), job))
    if not done:
        raise unknown_job(target, job)
    if as_json:
        said = target.app.job(job, queue=done.queue).progress()
        print_json({"id": job, "queue": done.queue, "state": "done", "progress": told_progress(said)})
    else:
        say(f"job {job} of queue {done.queue} is done; its result is kept")
