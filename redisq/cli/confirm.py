"""Ask before something is done that cannot be undone."""

from __future__ import annotations

import click

from redisq.redact import escape

__all__ = ["confirmed", "yes_option"]

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirmed(question: str, yes: bool) -> None:
    """Go on if the answer is yes. Asked on the standard error, so that the output stays what programs expect.

    Raises:
        click.Abort: It is not, or nobody is there to answer.
    """
    if not yes:
        click.confirm(escape(question), abort=True, err=True)
