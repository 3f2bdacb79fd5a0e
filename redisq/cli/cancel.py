"""`redisq cancel JOB`."""

from __future__ import annotations

import click

from redisq.cli.output import print_json, say
from redisq.cli.report import find_place, unknown_job
from redisq.cli.target import Target, json_option, queues_option, target_options
from redisq.redact import shown

__all__ = ["cancel"]


@click.command()
@click.argument("job")
@queues_option
@json_option
@target_options
def cancel(target: Target, job: str, as_json: bool) -> None:
    """Take JOB out of its queue; when it runs, have its worker stop it: it does not run again.

    A coroutine is cancelled, a child process killed; a function in a thread is told when it next runs Python code. Without
    -Q, all queues are looked through. The exit code is 1 when the job is over, or a dead letter.

    With --json: {"id", "queue", "cancelled": true}.
    """
    place = find_place(target, job)
    if place and target.app.job(job, queue=place.keys.queue).cancel():
        if as_json:
            print_json({"id": job, "queue": place.keys.queue, "cancelled": True})
        else:
            say(f"cancelled job {job} of queue {place.keys.queue}")
        return
    now = find_place(target, job)
    if not now:
        raise unknown_job(target, job)
    holder = f" on worker {shown(now.found.worker, 200)}" if now.found.worker else ""
    advice = "; `redisq dead drop` removes it" if now.found.state == "dead" else ""
    raise click.ClickException(
        f"job {job} of queue {now.keys.queue} could not be cancelled: it is {now.found.state}{holder}{advice}"
    )
