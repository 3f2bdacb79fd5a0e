"""`redisq doctor`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import click

from redisq.app.control import ANSWER_WITHIN, question
from redisq.app.waiting import Ask, Step
from redisq.broker.health import Finding, Level, check_channels, check_work, judge
from redisq.broker.keys import QueueKeys
from redisq.broker.service import read_service
from redisq.broker.vitals import Vitals, is_cluster, read_info, read_vitals
from redisq.cli.errors import in_words
from redisq.cli.installation import installation
from redisq.cli.output import print_json, print_table
from redisq.cli.target import Target, is_internal, json_option, queues_option, target_options
from redisq.errors import AccessDenied, BrokerError, RedisqError
from redisq.redact import escape, redact

__all__ = ["doctor"]

Steps = Generator[Step, Any, Any]


@click.command()
@click.argument("app_argument", metavar="[MODULE:APP]", required=False)
@queues_option
@click.option("--strict", is_flag=True, envvar="REDISQ_STRICT", help="Let the exit code be 1 when there are only warnings.")
@click.option(
    "--all",
    "internal",
    is_flag=True,
    envvar="REDISQ_DOCTOR_ALL",
    help="Also the queues of Celery's remote control and events.",
)
@json_option
@target_options
def doctor(target: Target, strict: bool, internal: bool, as_json: bool) -> None:
    """Check Redis, the user's rights on it, the queues, and this installation.

    The exit code is 2 when there is an error, 1 when there are warnings and --strict is given, else 0.

    With --json: {"level", "findings": [{"check", "level", "text"}]}. A level is ok, warning or error, that above all
    the worst of them.
    """
    findings = [*_server(target, internal), installation()]
    worst = worst_of(findings)
    if as_json:
        print_json({"level": worst, "findings": [{**each._asdict(), "text": redact(each.text)} for each in findings]})
    else:
        print_table(("level", "check", "finding"), [(each.level, each.check, escape(redact(each.text))) for each in findings])
    click.get_current_context().exit(exit_code(worst, strict))


def worst_of(findings: Sequence[Finding]) -> Level:
    """Return the worst level."""
    return max((finding.level for finding in findings), key=list(Level).index)


def exit_code(worst: Level, strict: bool) -> int:
    """Return what a probe sees."""
    return {Level.OK: 0, Level.WARNING: int(strict), Level.ERROR: 2}[worst]


def _server(target: Target, internal: bool) -> list[Finding]:
    """Check the server; that it cannot be asked is a finding too."""
    try:
        info = target.ask(read_info())
        if is_cluster(info):
            return judge(Vitals(info))
        queues = [target.app.keys(name) for name in target.chosen] or target.at_risk()
        unnamed = [keys.queue for keys in queues if is_internal(keys) and not internal and not target.chosen]
        return [
            *judge(replace(target.ask(read_vitals(info, queues)), unnamed=unnamed)),
            _work(target, queues),
            check_channels(_channels(target, queues), target.app.registry, queues),
        ]
    except RedisqError as error:
        return [Finding("server", Level.ERROR, in_words(error))]


def _work(target: Target, queues: Sequence[QueueKeys]) -> Finding:
    """Who serves the queues; a user who may not read it is told so. Those of Celery's remote control are nobody's work."""
    try:
        return check_work(target.ask(read_service(target.app.registry, [keys for keys in queues if not is_internal(keys)])))
    except AccessDenied as error:
        return Finding("work", Level.WARNING, f"unknown: the user may not read which workers are there. {error}")


def _channels(target: Target, queues: Sequence[QueueKeys]) -> str:
    """Why the channels cannot be used; empty if they can. Nobody is asked anything: the workers named are none."""
    registry = target.app.registry
    never = registry.reply("never")
    control = target.app.connector.in_database(registry.control)
    tries: list[Steps] = [question(registry, "ping", {}, ()), _speak(never, control)]
    tries += [_speak(keys.done("never"), keys.done("never")) for keys in queues]
    try:
        for steps in tries:
            target.ask(steps)
    except BrokerError as error:
        return str(error)
    return ""


def _speak(channel: str, heard: str) -> Steps:
    """Speak on one channel while listening to the other."""
    yield Ask(channel, heard, b"", ANSWER_WITHIN)
