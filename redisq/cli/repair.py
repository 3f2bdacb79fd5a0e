"""`redisq repair QUEUE`."""

from __future__ import annotations

import click

from redisq.broker import repair as losses_of
from redisq.broker.repair import Losses
from redisq.cli.output import print_json, say
from redisq.cli.target import Target, json_option, target_options
from redisq.words import counted

__all__ = ["losses_in_words", "repair"]

#: Field of `Losses` -> what was lost, and what a repair does about it.
_WORDS = {
    "config": ("", "the queue has lost its config: it is rebuilt, and a pause or rules of the queue have to be set again"),
    "waiting": ("message", "in no state: back in the queue, to run now; due times are not known any more"),
    "processing": ("message", "in no state, leased: the holder goes on if it lives, else another worker has it after a lease"),
    "dead": ("message", "in no state, dead: a dead letter again"),
    "needs": ("message", "without the record of its lane and limits: the lane is kept, limits as far as their names tell"),
    "tickets": ("place", "of waiting messages that no worker would look at: given again"),
    "lanes": ("lane", "whose holder is not known, or is gone: corrected"),
    "gates": ("limit", "that no worker would look at again: looked at"),
    "slots": ("limit", "with a wrong count of running messages: counted again"),
    "bodiless": ("message", "without a body, which cannot run: a dead letter with the reason body_missing"),
    "in_turn": ("message", "without a body in a lane that stops for a dead letter: left there, a dead letter at its turn"),
}


def losses_in_words(losses: Losses) -> list[str]:
    """Say what a queue has lost, a line each; none: nothing."""
    found = {name: count for name, count in losses._asdict().items() if count}
    return [
        f"{counted(count, _WORDS[name][0])} {_WORDS[name][1]}" if _WORDS[name][0] else _WORDS[name][1]
        for name, count in found.items()
    ]


@click.command()
@click.argument("queue")
@click.option("-y", "--yes", is_flag=True, help="Repair. Without it, only show what was lost.")
@json_option
@target_options
def repair(target: Target, queue: str, yes: bool, as_json: bool) -> None:
    """Find what QUEUE lost when one of its keys was deleted or evicted, and put it back.

    A message whose body is gone cannot be put back: it becomes a dead letter.

    Without --yes nothing is changed. Workers may run meanwhile, and it may be repeated. For a probe, see redisq doctor.

    With --json: {"queue", "repaired": true or false, "lost": {"config", "waiting", "processing", "dead", "needs", "tickets",
    "lanes", "gates", "slots", "bodiless", "in_turn"}}, how many of each were found.
    """
    keys = target.app.keys(queue)
    steps = losses_of.repair if yes else losses_of.look
    losses = target.ask(steps(keys, target.app.settings.lease))
    if not any(losses):
        target.queue(queue)  # it may not be there
    if as_json:
        print_json({"queue": queue, "repaired": yes, "lost": losses._asdict()})
    else:
        for line in losses_in_words(losses):
            say(line)
        say(f"queue {queue} " + _end(losses, yes))


def _end(losses: Losses, repaired: bool) -> str:
    if not any(losses):
        return "has lost nothing"
    if not any(losses._replace(in_turn=0)):
        return "has nothing to repair"
    return "is repaired" if repaired else "was not changed: --yes repairs it"
