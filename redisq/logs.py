"""The loggers of redisq, and how `redisq worker` shows logs: bounded, and without secrets."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from redisq.redact import redact

__all__ = ["MAX_PART", "LogSetup", "get_logger", "is_foreign", "is_machinery", "own_packages", "present_setup", "set_up"]

#: Characters of one value, or of one traceback, in a line of the log.
MAX_PART = 8000

# Python's library is where `os` is. To ask `sysconfig` would cost each program half a megabyte.
_MACHINERY = tuple(f"{folder}{os.sep}" for folder in (Path(os.__file__).parent, Path(__file__).parent))
_OURS = _MACHINERY[-1]
_INSTALLED = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))

_Exception = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def is_foreign(file: str) -> bool:
    """Whether code in a file is neither the app's nor its tasks': Python's, redisq's, or an installed package's."""
    return file.startswith(_MACHINERY) or any(folder in file for folder in _INSTALLED)


def is_machinery(file: str) -> bool:
    """Whether code in a file is Python's or redisq's. An app that is installed as a package is neither."""
    return file.startswith(_OURS) or (file.startswith(_MACHINERY) and not any(folder in file for folder in _INSTALLED))


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose records show no secrets and have bounded length, whoever handles them."""
    logger = logging.getLogger(name)
    logger.addFilter(_SAFE)  # once, however often it is added
    return logger


class _Safe(logging.Filter):
    """Makes the values of a record safe. Its template stays, since error trackers group records by it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        if isinstance(record.args, tuple):
            record.args = tuple(_safe(value) for value in record.args)
        if record.exc_info and not record.exc_text:
            record.exc_text = _traceback(record.exc_info)
        return True


_SAFE = _Safe()


def _safe(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and len(value) <= 32 and value.isalnum() and not value.startswith(("A", "eyJ")):
        return value  # an id, say: only keys that begin like these have nothing but letters and digits
    return _bounded(str(value))


def _bounded(text: str) -> str:
    # Cut before it is looked at: a huge text must not hold up an event loop.
    clean = redact(text[: 2 * MAX_PART])
    return clean if len(clean) <= MAX_PART else f"{clean[:MAX_PART]}…"


def _traceback(info: _Exception) -> str:
    """Return a traceback without secrets. Of a long one the end is shown, which has the error."""
    text = redact("".join(traceback.format_exception(*info)).rstrip("\n"))
    return text if len(text) <= MAX_PART else f"…{text[-MAX_PART:]}"


class LogSetup(NamedTuple):
    """How logs are shown.

    Attributes:
        layout: The format of a line.
        level: From which level on, e.g. `INFO`.
        own: The app's loggers.
    """

    layout: str
    level: str
    own: frozenset[str]


class _Formatter(logging.Formatter):
    """Shows tracebacks of all records, and the whole text of records of other packages, without secrets and bounded.

    The app's own lines are as it wrote them.
    """

    def __init__(self, setup: LogSetup) -> None:
        super().__init__(setup.layout)
        self.setup = setup
        self._own = setup.own | {"redisq"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of a record."""
        # Another handler may have kept the traceback with the record, as it is.
        kept, record.exc_text = record.exc_text, None
        try:
            text = super().format(record)
        finally:
            record.exc_text = kept
        return text if any(_is_in(record.name, name) for name in self._own) else _bounded(text)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls
        """Return the text of a traceback."""
        return _traceback(ei)


def _is_in(logger: str, name: str) -> bool:
    return logger == name or logger.startswith(f"{name}.")


def set_up(setup: LogSetup) -> None:
    """Show logs on stderr: redisq's and the app's own from a level on, all others from WARNING on.

    The INFO of other packages is not the app's to vouch for. That of httpx, say, has whole URLs, and a chat platform's URL
    has the bot's token. Levels that were set before stay as they are.
    """
    root, wanted = logging.getLogger(), logging.getLevelName(setup.level.upper())
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(setup))
    root.addHandler(handler)
    if root.level == logging.WARNING:
        root.setLevel(max(wanted, logging.WARNING))
    for name in ("redisq", *setup.own):
        logger = logging.getLogger(name)
        if logger is not root and logger.level == logging.NOTSET:
            logger.setLevel(wanted)


def present_setup() -> LogSetup | None:
    """Return what this process was set up with, for a child process; None: the app has set up its own logging, or none."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    return next((each.setup for each in formatters if isinstance(each, _Formatter)), None)


def own_packages(modules: Iterable[str]) -> set[str]:
    """Return the names of the app's own loggers, as `getLogger(__name__)` makes them: of packages and single modules.

    They are those of these modules, and of what was imported from the same folders, or from the current one.
    """
    named = {module.partition(".")[0] for module in modules}
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if "." not in name}
    folders = {str(Path.cwd()), *(_folder(file) for name, file in files.items() if name in named and file)}
    return named | {
        name for name, file in files.items() if name != "redisq" and file and _folder(file) in folders and not is_foreign(file)
    }


def _folder(file: str) -> str:
    """Return the folder that a module, or package, of this file was imported from."""
    path = Path(file)
    return str(path.parents[1] if path.stem == "__init__" else path.parent)
