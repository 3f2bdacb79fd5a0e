"""`redisq limits list|set|clear|pause|resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from redisq.app.limits import LimitState, limits_of, seconds_or_none
from redisq.broker.keys import QueueKeys
from redisq.cli.output import print_json, print_table, say, span
from redisq.cli.pause import for_option
from redisq.cli.target import Target, json_option, queues_option, target_options

__all__ = ["limits", "paused_words"]

_COLUMNS = ("queue", "limit", "rule", "set by", "free", "in use", "waiting", "lanes", "opens in", "paused")


@click.group()
def limits() -> None:
    """Look at limits, and change them while workers run.

    NAME is that of a limit (bot), or of its instance for one chat (chat:42). What is set holds at once, for what waits too,
    and goes before the rules in the code until it is cleared.
    """


@limits.command("list")
@queues_option
@json_option
@target_options
def list_(target: Target, as_json: bool) -> None:
    """List the limits of each queue, and those of their instances and lanes that hold something back.

    With --json: {"limits": [{"queue", "name", "rule", "by_operator", "free", "in_use", "waiting", "lanes", "opens_in",
    "paused", "paused_for", "group"}]}. Times are in seconds; "paused_for" is null when it is not paused, or until it is
    resumed; "group" is that of the queues that share the limit, or null.
    """
    found = [(keys, state) for keys in target.queues() for state in target.ask(limits_of(keys))]
    if as_json:
        print_json({"limits": [_fields(keys, state) for keys, state in found]})
    elif found:
        grouped = any(state.group for _, state in found)
        columns = (_COLUMNS[0], "group", *_COLUMNS[1:]) if grouped else _COLUMNS
        print_table(columns, [_row(keys, state, grouped=grouped) for keys, state in found])
    else:
        say("no limits")


@limits.command("set")
@click.argument("name")
@click.argument("rule", nargs=-1, required=True)
@queues_option
@json_option
@target_options
def set_(target: Target, name: str, rule: Sequence[str], as_json: bool) -> None:
    """Set the RULE of a limit: 30/s, 20/m burst 3, 8 at once.

    In the queues of -Q, else in those that know the limit. With --json: {"queues": [queue], "name", "rule"}.
    """
    queues = _queues(target, name)
    shown = ""
    for keys in queues:
        shown = target.app.control.set_limit(keys.queue, name, " ".join(rule))
    _report(queues, name, f"is {shown} now", as_json, rule=shown)


@limits.command()
@click.argument("name")
@queues_option
@json_option
@target_options
def clear(target: Target, name: str, as_json: bool) -> None:
    """Let the rule in the code hold again.

    In the queues of -Q, else in those that know the limit. With --json: {"queues": [queue], "name"}.
    """
    queues = _queues(target, name)
    for keys in queues:
        target.app.control.clear_limit(keys.queue, name)
    _report(queues, name, "is as in the code again", as_json)


@limits.command()
@click.argument("name")
@for_option
@queues_option
@json_option
@target_options
def pause(target: Target, name: str, seconds: float | None, as_json: bool) -> None:
    """Let nothing pass that needs the limit. What runs goes on.

    In the queues of -Q, else in those that know the limit. With --json: {"queues": [queue], "name", "paused": true}.
    """
    queues = _queues(target, name)
    for keys in queues:
        target.app.control.pause(keys.queue, limit=name, seconds=seconds)
    _report(queues, name, "is paused" + ("" if seconds is None else f" for {span(seconds)}"), as_json, paused=True)


@limits.command()
@click.argument("name")
@queues_option
@json_option
@target_options
def resume(target: Target, name: str, as_json: bool) -> None:
    """Let messages pass again; also ends the pause after a 429.

    In the queues of -Q, else in those that know the limit. With --json: {"queues": [queue], "name", "paused": false}.
    """
    queues = _queues(target, name)
    for keys in queues:
        target.app.control.resume(keys.queue, limit=name)
    _report(queues, name, "goes on", as_json, paused=False)


def _queues(target: Target, name: str) -> list[QueueKeys]:
    """The queues of -Q, else those of the target that know the limit.

    Raises:
        click.ClickException: None does.
    """
    if target.chosen:
        return target.queues()
    known: dict[QueueKeys, set[str]] = {}
    for keys in target.queues():
        in_redis = {_class(state.name) for state in target.ask(limits_of(keys)) if not state.name.startswith("@")}
        known[keys] = in_redis | target.app.limit_names(keys.queue)
    found = [keys for keys, names in known.items() if _class(name) in names]
    if not found:
        there = ", ".join(f"{keys.queue}: {', '.join(sorted(names))}" for keys, names in known.items() if names) or "no limit"
        raise click.ClickException(f"no queue has a limit {_class(name)!r}; there is {there}. To mean it all the same: -Q QUEUE")
    return found


def _class(name: str) -> str:
    return name.partition(":")[0]


def _report(queues: Sequence[QueueKeys], name: str, what: str, as_json: bool, **fields: Any) -> None:
    if as_json:
        print_json({"queues": [keys.queue for keys in queues], "name": name, **fields})
    else:
        for keys in queues:
            say(f"limit {name} of queue {keys.queue} {what}")


def _fields(keys: QueueKeys, state: LimitState) -> dict[str, Any]:
    fields = {"queue": keys.queue, **asdict(state)}
    return {**fields, "paused": state.paused_for is not None, "paused_for": seconds_or_none(state.paused_for)}


def _row(keys: QueueKeys, state: LimitState, *, grouped: bool) -> tuple[object, ...]:
    where = (keys.queue, state.group or "-") if grouped else (keys.queue,)
    whose = "operator" if state.by_operator else "code"
    return (
        *where, state.name, state.rule or "-", whose if state.rule else "-", "-" if state.free is None else state.free,
        state.in_use, state.waiting, state.lanes, "-" if state.opens_in is None else span(state.opens_in),
        paused_words(state.paused_for),
    )  # fmt: skip


def paused_words(paused_for: float | None) -> str:
    """Say for how long something is paused."""
    if paused_for is None:
        return "no"
    return "yes" if seconds_or_none(paused_for) is None else span(paused_for)
