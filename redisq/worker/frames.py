"""Say where an error was raised: files, lines and functions, and no values, which may be secret."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb

__all__ = ["origin", "stack"]

#: The innermost frames that are shown.
_MOST = 30

#: Where code is that is neither the app's nor its tasks'.
_FOREIGN = tuple({*(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1])})


def origin(error: BaseException) -> str:
    """Return the last frame of the app's own code; of any code, if none of the app's was there; empty without a frame."""
    frames = list(_frames(error))
    own = [frame for frame in frames if not frame[0].startswith(_FOREIGN)]
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
