"""Know an error that no retry cures by its shape: the user blocked the bot, or the request itself is wrong.

What proves it, and nothing less does:

- a 400 or 403 of a chat platform's client: aiogram, python-telegram-bot, Telethon, Pyrogram, discord.py, but for the few
  answers that pass by themselves (Telegram could not fetch a picture, "flood", Discord's own limits under a 403);
- an error code of Slack that is about this message, its channel or its reader;
- a 400 that httpx, aiohttp or requests raise; and a 403 of Telegram or Discord that they raise, where its body was read.
  Other 403s may come from a firewall or a limit.

A 401 is not: a token can be put right while messages wait. Neither are a 404, a 429 or a 5xx. As for limits, an error raised
`from` another is looked through, `Retry` and `Reject` are not, and a group is permanent if all in it are.
An error that breaks when it is looked at is not permanent.
"""

from __future__ import annotations

import re

from redisq.errors import RedisqError
from redisq.gates.shapes import body_of, classes_of, get, status_of

__all__ = ["is_permanent", "permanent_in"]

#: Classes of Telegram's clients for 400 and 403.
_TELEGRAM = frozenset(
    (
        ("aiogram", "TelegramBadRequest"),
        ("aiogram", "TelegramForbiddenError"),
        ("telegram", "BadRequest"),
        ("telegram", "Forbidden"),
        ("telethon", "BadRequestError"),
        ("telethon", "ForbiddenError"),
        ("pyrogram", "BadRequest"),
        ("pyrogram", "Forbidden"),
    )
)
#: Of those what another attempt may cure, by the error's class or text.
_PASSES = re.compile(
    r"(?i)http url content|webpage_?(?:curl|media)|fetching the webpage|type of the web ?page|file_?reference|try again|retry"
    r"|temporar|flood|too many requests|not_?inited|internal"
)
#: Discord's codes of limits and of overload, which come with other statuses, too.
_DISCORD_PASSES = frozenset((20016, 20018, 20022, 20026, 20028, 20029, 31001, 31002, 40003, 40062, 40333, 130000))
#: What Discord says when a user takes no messages, or a bot may not write there.
_DISCORD_FORBIDDEN = frozenset((50001, 50007, 50013, 50278))
#: What Slack says of the message itself, of its channel or of its reader.
_SLACK = frozenset(
    (
        "as_user_not_supported", "cannot_dm_bot", "cannot_reply_to_message", "cant_update_message", "channel_is_archived",
        "channel_not_found", "edit_window_closed", "invalid_arg_name", "invalid_arguments", "invalid_attachments",
        "invalid_blocks", "invalid_blocks_format", "invalid_channel", "invalid_metadata_format", "is_archived",
        "is_inactive", "markdown_text_conflict", "message_not_found", "messages_tab_disabled", "metadata_too_large",
        "missing_post_type", "msg_blocks_too_long", "msg_too_long", "no_text", "not_in_channel", "restricted_action",
        "restricted_action_non_threadable_channel", "restricted_action_read_only_channel", "restricted_action_thread_locked",
        "restricted_action_thread_only_channel", "thread_not_found", "too_many_attachments", "user_disabled",
        "user_not_found", "user_not_in_channel", "users_not_found",
    )
)  # fmt: skip
_PLAIN = frozenset((("httpx", "HTTPStatusError"), ("aiohttp", "ClientResponseError"), ("requests", "HTTPError")))

_DEPTH = 5


def is_permanent(error: BaseException) -> bool:
    """Whether no retry of what ended with this error would end otherwise."""
    return bool(permanent_in(error))


def permanent_in(error: BaseException) -> list[BaseException]:
    """Return the errors that prove it: the error itself, the one that it was raised from, or those of a group.

    Empty: another attempt may help.
    """
    try:
        return _permanent(error, _DEPTH)
    except Exception:  # noqa: BLE001 - a foreign class's own code
        return []


def _permanent(error: BaseException, depth: int) -> list[BaseException]:
    if isinstance(error, RedisqError) or depth == 0:
        return []
    if isinstance(error, BaseExceptionGroup):
        found = [_permanent(each, depth - 1) for each in error.exceptions]
        return [each for some in found for each in some] if all(found) else []
    for kind in classes_of(error):
        if (is_so := _judged_by(kind, error)) is not None:
            return [error] if is_so else []
    return _permanent(error.__cause__, depth - 1) if error.__cause__ else []


def _judged_by(kind: tuple[str, str], error: BaseException) -> bool | None:
    """Whether an error of this package and class is permanent; None: the class says nothing of it."""
    if kind in _TELEGRAM:
        return not _PASSES.search(f"{type(error).__name__} {_text(error)}")
    if kind == ("discord", "HTTPException"):
        return status_of(error) in (400, 403) and get(error, "code") not in _DISCORD_PASSES
    if kind == ("slack_sdk", "SlackApiError"):
        said = body_of(error).get("error")
        return isinstance(said, str) and said in _SLACK
    return _refused_for_good(error) if kind in _PLAIN else None


def _refused_for_good(error: BaseException) -> bool:
    status, body = status_of(error), body_of(error)
    if status == 400:
        # Of an answer that it cannot read aiohttp makes a 400, too: it has the reason as its cause.
        return error.__cause__ is None and not _PASSES.search(str(body.get("description", "")))
    code = body.get("code")
    by_telegram = body.get("ok") is False and body.get("error_code") == 403
    return status == 403 and (by_telegram or (type(code) is int and code in _DISCORD_FORBIDDEN))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:  # noqa: BLE001 - a foreign class's own code
        return ""
