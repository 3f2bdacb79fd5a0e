"""An error of redisq ends a command with one line, not with a traceback."""

from __future__ import annotations

import traceback
from typing import Any

import click

from redisq.errors import RedisqError
from redisq.redact import escape, redact

__all__ = ["ErrorsInWords", "in_words"]


class ErrorsInWords(click.Group):
    """A group of commands; what they raise of `RedisqError` is printed in one line, and the exit code is 1.

    Of other errors the traceback is printed, without secrets.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the command line names."""
        try:
            return super().invoke(ctx)
        except RedisqError as error:
            raise click.ClickException(in_words(error)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - of the app's own module, say, as it is imported
            # As Python shows it, but for secrets.
            click.echo(redact("".join(traceback.format_exception(error))), err=True, nl=False)
            raise click.exceptions.Exit(1) from None


def in_words(error: RedisqError) -> str:
    """Return the error's type and text on one line, without secrets."""
    return escape(redact(f"{type(error).__name__}: {error}"))
