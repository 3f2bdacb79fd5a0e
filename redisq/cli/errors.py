"""An error of redisq ends a command with one line, not with a traceback."""

from __future__ import annotations

from typing import Any

import click

from redisq.errors import RedisqError
from redisq.redact import escape, redact

__all__ = ["ErrorsInWords", "in_words"]


class ErrorsInWords(click.Group):
    """A group of commands; what they raise of `RedisqError` is printed in one line, and the exit code is 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the command line names."""
        try:
            return super().invoke(ctx)
        except RedisqError as error:
            raise click.ClickException(in_words(error)) from None


def in_words(error: RedisqError) -> str:
    """Return the error's type and text on one line, without secrets."""
    return escape(redact(f"{type(error).__name__}: {error}"))
