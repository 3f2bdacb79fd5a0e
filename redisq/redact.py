"""Take secrets and control characters out of text that goes to logs, to Redis, or to a screen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

from redisq.words import counted

__all__ = ["MAX_TEXT", "error_text", "escape", "redact", "redacted", "shown"]

#: Characters of an error that are kept with a message.
MAX_TEXT = 500
#: Of the errors inside of an error, so many are named, and so many characters of each are kept.
_MOST_PROOFS, _MAX_PROOF = 3, 110

# The name that a secret is given under. It is found by its last word: to begin at each word of "x-x-x-..." as well, in
# search of "x-x-x-token", takes quadratic time.
_NAMED = r"(?i)((?:token|api[_-]?key|password|passwd|secret|private[_-]?key|access[_-]?key)[\"']?\s{0,9}[=:]\s{0,9})"

_SECRETS = (
    (re.compile(r"(?<!\d)\d{8,10}:[\w-]{35}"), "***"),  # Telegram bot token, also inside its API's URLs
    (re.compile(r"\bxox[a-z]-[\w-]+"), "xox*-***"),  # Slack
    (re.compile(r"\b[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}"), "***"),  # Discord
    (re.compile(r"\bsk-[\w-]{16,}"), "sk-***"),  # LLM providers' keys
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@"), r"\1:***@"),
    (re.compile(r"\b(?:gsk_|xai-|hf_|gh[a-z]_|github_pat_|glpat-|[spr]k_(?:live|test)_|AIza)[\w-]{10,}"), "***"),  # API keys
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}"), "***"),  # AWS
    (re.compile(r"\beyJ[\w-]{8,2000}\.[\w-]{8,2000}(?:\.[\w-]{0,2000})?"), "***"),  # JSON web tokens
    (re.compile(r"-----BEGIN [A-Z ]{1,40}-----.*?(?:-----END [A-Z ]{1,40}-----|\Z)", re.DOTALL), "***"),
    (re.compile(r"(hooks\.slack\.com/(?:services|workflows)|/api/webhooks/\d{1,30})/[^\s\"']+"), r"\1/***"),
    (re.compile(r"([?&](?:key|sig|signature|auth|access_token)=)[^&\s\"']+"), r"\1***"),
    (re.compile(r"(?i)\b(authorization[\"']?\s{0,9}[=:]\s{0,9}[\"']?(?:[\w-]{1,20}\s{1,9})?)[^\s\"',;]+"), r"\1***"),
    (re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s{0,9}[=:]\s{0,9})[^\r\n]+"), r"\1***"),
    (re.compile(_NAMED + r'"[^"]*"?'), r'\1"***"'),
    (re.compile(_NAMED + r"'[^']*'?"), r"\1'***'"),
    (re.compile(_NAMED + r"[^\s\"'&,;]+"), r"\1***"),
)
# Terminal escapes, line breaks, the marks that turn the direction of text, and what no encoding can print.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SECRET_NAME = re.compile(r"(?i)(token|api[_-]?key|password|secret)\W*$")

# A token that begins before the end of what is shown is looked at whole.
_MARGIN = 300


#: Longer texts are cut before they are looked at, so that a huge error text cannot hold up an event loop.
MAX_REDACTED = 100_000


def redact(text: str) -> str:
    """Return the text with what looks like a token or password replaced by `***`, cut after `MAX_REDACTED` characters."""
    text = text[:MAX_REDACTED]
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def error_text(error: BaseException, proofs: Sequence[BaseException] = ()) -> str:
    """Return `Type: message` on one line, without secrets, at most `MAX_TEXT` characters.

    Args:
        error: What was raised.
        proofs: The errors inside of it that decide what becomes of the message: they are named too, the first few.
    """
    named = [each for each in proofs if each is not error]
    if not named:
        return _line(error, MAX_TEXT)
    brief = list(dict.fromkeys(_line(each, _MAX_PROOF) for each in named))
    more = f" and {len(brief) - _MOST_PROOFS} more" if len(brief) > _MOST_PROOFS else ""
    because = f" (because of {', '.join(brief[:_MOST_PROOFS])}{more})"
    return _line(error, MAX_TEXT - len(because)) + because


def _line(error: BaseException, limit: int) -> str:
    try:
        message = redact(str(error)[: 4 * MAX_TEXT])
    except Exception:  # noqa: BLE001 - its class says all the same what happened
        message = ""
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return escape(line)[:limit]


def escape(text: str) -> str:
    """Return the text with its control characters written out, so that it can neither move a cursor nor forge a line."""
    return _CONTROL.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown(text: str, limit: int = MAX_TEXT) -> str:
    """Return the beginning of a text that somebody else wrote, without secrets, on one line, for a screen."""
    return escape(_cut(text, limit))[: limit + 1]


def redacted(value: object, limit: int = 5000) -> object:
    """Return a decoded value as JSON can show it: without secrets, long texts cut, bytes as their number."""
    if isinstance(value, str):
        return _cut(value, limit)
    if isinstance(value, bytes):
        return f"<{counted(len(value), 'byte')}>"
    if isinstance(value, list | tuple):
        return [redacted(item, limit) for item in value]
    if isinstance(value, dict):
        return {_cut(str(name), limit): _named(str(name), item, limit) for name, item in value.items()}
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    return _cut(str(value), limit)


def _named(name: str, value: object, limit: int) -> object:
    return "***" if value and _SECRET_NAME.search(name[-50:]) else redacted(value, limit)


def _cut(text: str, limit: int) -> str:
    clean = redact(text[: limit + _MARGIN])
    if len(text) <= limit + _MARGIN:
        return clean if len(clean) <= limit else clean[:limit] + "…"
    return clean[:-_MARGIN][:limit] + "…"
