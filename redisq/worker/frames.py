"""Say where an error was raised: files, lines and functions, and no values, which may be secret."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb

from redisq.logs import is_foreign, is_machinery
from redisq.redact import escape

__all__ = ["origin", "stack"]

#: The innermost frames that are shown, and the characters that they may have together.
_MOST, _MAX_TEXT = 20, 2000


def origin(error: BaseException) -> str:
    """Return the last frame of the app's own code; of any code, if none of the app's was there; empty without a frame."""
    frames = list(_frames(error))
    own = [frame for frame in frames if not is_foreign(frame[0])]
    if not frames:
        return ""
    file, line, function = (own or frames)[-1]
    return f" (at {file}:{line} in {function})"


def stack(error: BaseException) -> str:
    """Return the innermost frames, a line each, the outermost first: `file:line in function`.

    Those by which redisq and Python came to the app's code are left out, unless there are no others.
    """
    frames = list(_frames(error))
    begin = next((at for at, (file, _, _) in enumerate(frames) if not is_machinery(file)), 0)
    lines: list[str] = []
    left = _MAX_TEXT
    for file, line, function in reversed(frames[begin:][-_MOST:]):
        text = escape(f"{file}:{line} in {function}")
        left -= len(text) + 1
        if left < 0:
            break
        lines.append(text)
    return "\n".join(reversed(lines))


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    """Give file, line and function; after those of a group, those of its first error."""
    while True:
        for frame, line in walk_tb(error.__traceback__):
            yield frame.f_code.co_filename, line, frame.f_code.co_qualname
        if not isinstance(error, BaseExceptionGroup):
            return
        error = error.exceptions[0]
