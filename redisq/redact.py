"""Take secrets and control characters out of text that goes to logs, to Redis, or to a screen."""

from __future__ import annotations

import re

__all__ = ["MAX_TEXT", "error_text", "redact"]

#: Characters of an error that are kept with a message.
MAX_TEXT = 500

_SECRETS = (
    (re.compile(r"(?<!\d)\d{8,10}:[\w-]{35}"), "***"),  # Telegram bot token, also inside its API's URLs
    (re.compile(r"\bxox[a-z]-[\w-]+"), "xox*-***"),  # Slack
    (re.compile(r"\b[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}"), "***"),  # Discord
    (re.compile(r"\bsk-[\w-]{16,}"), "sk-***"),  # LLM providers' keys
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?<=://)([^/@\s]*?):[^/@\s]*@"), r"\1:***@"),
    (re.compile(r"(?i)\b((?:[\w-]*token|api[_-]?key|password|secret)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;]+"), r"\1***"),
)
# Terminal escapes, line breaks, and the marks that turn the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """Return the text with what looks like a token or password replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def error_text(error: BaseException) -> str:
    """Return `Type: message` on one line, without secrets, at most `MAX_TEXT` characters."""
    message = redact(str(error)[: 4 * MAX_TEXT])
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)[:MAX_TEXT]
