"""Say where an error was raised: files, lines and functions, and no values, which may be secret."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb

from redisq.logs import is_foreign

__all__ = ["origin", "stack"]

#: The innermost frames that are shown.
_MOST = 30


def origin(error: BaseException) -> str:
    """Return the last frame of the app's own code; of any code, if none of the app's was there; empty without a frame."""
    frames = list(_frames(error))
    own = [frame for frame in frames if not is_foreign(frame[0])]
    if not frames:
        return ""
    file, line, function = (own or frames)[-1]
    return f" (at {file}:{line} in {function})"


def stack(error: BaseException) -> str:
    """Return the innermost frames, a line each, the outermost first."""
    return "\n".join(f"  {file}:{line} in {function}" for file, line, function in list(_frames(error))[-_MOST:])


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    """Give file, line and function; after those of a group, those of its first error."""
    while True:
        for frame, line in walk_tb(error.__traceback__):
            yield frame.f_code.co_filename, line, frame.f_code.co_qualname
        if not isinstance(error, BaseExceptionGroup):
            return
        error = error.exceptions[0]
