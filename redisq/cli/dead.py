"""`redisq dead list|show|replay|drop`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from redisq.broker import commands
from redisq.broker.held_back import gates_of
from redisq.broker.keys import QueueKeys
from redisq.broker.overview import dead_letters
from redisq.broker.queues import Steps
from redisq.broker.sweep import remove_all, replay_all
from redisq.cli.confirm import confirmed, yes_option
from redisq.cli.inspect import show_args_option
from redisq.cli.output import print_json, print_table, say, span
from redisq.cli.report import find_place, find_places, letter, print_report, report, unknown_job
from redisq.cli.target import Target, json_option, queues_option, target_options
from redisq.states import State
from redisq.words import counted

__all__ = ["dead"]

_COLUMNS = ("job", "queue", "task", "attempt", "crashes", "reason", "dead for", "error")
#: Characters of an error that a line of the list shows; `dead show` has all.
_BRIEF = 100
#: So many letters that are not replayed are named.
_MOST = 20


@click.group()
def dead() -> None:
    """Look at dead letters, and decide what becomes of them.

    A dead letter is a message that will not be tried again. It is kept with its error until it is replayed or dropped.
    """


@dead.command("list")
@queues_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), envvar="REDISQ_LIMIT", help="Show so many.")
@click.option("--offset", default=0, show_default=True, type=click.IntRange(0), envvar="REDISQ_OFFSET", help="Pass over so many.")
@json_option
@target_options
def list_(target: Target, limit: int, offset: int, as_json: bool) -> None:
    """List dead letters, one queue after the other, the oldest first.

    With --json: {"total", "dead": [{"id", "celery_id", "queue", "task", "attempt", "crashes", "parks", "requeues", "reason",
    "error", "size", "age"}]}. "total" is the number in all these queues, "age" the seconds since it died, "size" is in bytes.
    """
    now, page, total = target.ask(dead_letters(target.queues(), offset=offset, limit=limit))
    letters = [
        {**letter(keys, row.id, row.body, row.meta, target.app.settings.max_bytes), "age": (now - row.score) / 1_000_000}
        for keys, row in page
    ]
    if as_json:
        print_json({"total": total, "dead": letters})
        return
    if letters:
        print_table(_COLUMNS, [_row(each) for each in letters])
    say(f"{counted(total, 'dead letter')}" + (f", {offset + 1} to {offset + len(letters)} shown" if len(letters) < total else ""))


@dead.command()
@click.argument("job")
@queues_option
@show_args_option
@json_option
@target_options
def show(target: Target, job: str, show_args: bool, as_json: bool) -> None:
    """Show one dead letter; JOB may be a task id of Celery. The fields are those of `redisq inspect`."""
    place = find_place(target, job)
    if not place:
        raise unknown_job(target, job)
    if place.found.state != State.DEAD:
        raise click.ClickException(f"job {job} of queue {place.keys.queue} is no dead letter: it is {place.found.state}")
    gates = target.ask(gates_of(place.keys, place.id))
    fields = report(place, show_args=show_args, gates=gates, max_bytes=target.app.settings.max_bytes)
    if as_json:
        print_json(fields)
    else:
        print_report(fields)


@dead.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--all", "all_", is_flag=True, help="All dead letters that there are now.")
@queues_option
@click.option("--force", is_flag=True, help="Also those whose dedupe key another job has: both run.")
@yes_option
@json_option
@target_options
def replay(target: Target, jobs: tuple[str, ...], all_: bool, force: bool, yes: bool, as_json: bool) -> None:
    """Make dead letters wait again, in their old place and with all attempts anew.

    A letter stays dead while another job has its dedupe key: that job waits, runs, or ended within `dedupe_ttl`. With --force
    the letter waits beside it, without the key.

    The exit code is 1 when one of the jobs is no dead letter, or stays dead. With --json: {"replayed": number, "missing": [job],
    "held": {job: the job that has its key}}.
    """
    held: dict[str, str] = {}

    def some(keys: QueueKeys, job: str) -> bool:
        done = target.app.connector.execute(commands.replay(keys, (job,), beside=force))
        held.update(done.held)
        return job in done.ids or job in done.held

    def every(keys: QueueKeys) -> Steps[int]:
        count, others = yield from replay_all(keys, beside=force)
        held.update(others)
        return count

    _decide(target, jobs, all_, yes, as_json, "replay", "replayed", some, every, held)


@dead.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--all", "all_", is_flag=True, help="All dead letters that there are now.")
@queues_option
@yes_option
@json_option
@target_options
def drop(target: Target, jobs: tuple[str, ...], all_: bool, yes: bool, as_json: bool) -> None:
    """Delete dead letters. They are gone then.

    The exit code is 1 when one of the jobs is no dead letter. With --json: {"dropped": number, "missing": [job]}.
    """

    def some(keys: QueueKeys, job: str) -> bool:
        return target.app.connector.execute(commands.remove(keys, (job,), counter="dropped", states=(State.DEAD,))) == [job]

    def every(keys: QueueKeys) -> Steps[int]:
        return remove_all(keys, (State.DEAD,), "dropped")

    _decide(target, jobs, all_, yes, as_json, "drop", "dropped", some, every)


def _decide(
    target: Target,
    jobs: Sequence[str],
    all_: bool,
    yes: bool,
    as_json: bool,
    verb: str,
    done: str,
    some: Callable[[QueueKeys, str], bool],
    every: Callable[[QueueKeys], Steps[int]],
    held: Mapping[str, str] | None = None,
) -> None:
    """Decide on the dead letters that were named, or on all, and say what became of them.

    Args:
        target: The app and its queues.
        jobs: The ids that were named.
        all_: All dead letters, instead.
        yes: Do not ask.
        as_json: Say it as JSON.
        verb: What to do, for questions.
        done: What was done, for answers.
        some: Does it for one; False: it is no dead letter.
        every: Does it for all of a queue, and returns for how many.
        held: Those for which it was not done -> the job that has their dedupe key. `some` and `every` fill it.
    """
    if all_ == bool(jobs):
        raise click.UsageError(f"which dead letters? Name jobs, or say --all: redisq dead {verb} JOB...")
    missing: list[str] = []
    if all_:
        queues = target.queues()
        _, _, total = target.ask(dead_letters(queues, offset=0, limit=0))
        names = ", ".join(keys.queue for keys in queues)
        count = 0
        if total:
            confirmed(f"{verb.capitalize()} {counted(total, 'dead letter')} of {names}?", yes)
            count = sum(target.ask(every(keys)) for keys in queues)
    else:
        count, queues = 0, target.everywhere()
        for job in dict.fromkeys(jobs):
            there = [place for place in find_places(target, job, queues) if place.found.state == State.DEAD]
            decided = [place.id for place in there if some(place.keys, place.id)]
            count += sum(ident not in (held or ()) for ident in decided)
            if not decided:
                missing.append(job)
    if as_json:
        print_json({done: count, "missing": missing} | ({} if held is None else {"held": dict(held)}))
    else:
        say(f"{done} {counted(count, 'dead letter')}")
        for job in missing:
            say(f"Error: job {job} is no dead letter: see `redisq inspect {job}`", err=True)
        _say_held(held or {})
    if missing or held:
        click.get_current_context().exit(1)


def _say_held(held: Mapping[str, str]) -> None:
    for job, owner in [*held.items()][:_MOST]:
        say(f"Error: job {job} stays dead: job {owner} has its dedupe key; --force runs both", err=True)
    if len(held) > _MOST:
        say(
            f"Error: more that stay dead, since other jobs have their dedupe keys: {len(held) - _MOST}",
            err=True,
        )


def _row(fields: dict[str, Any]) -> tuple[object, ...]:
    error = fields["error"] or "-"
    return (
        fields["celery_id"] or fields["id"], fields["queue"], fields["task"] or "?", fields["attempt"], fields["crashes"],
        fields["reason"] or "-", span(fields["age"]), error if len(error) <= _BRIEF else error[: _BRIEF - 1] + "…",
    )  # fmt: skip
