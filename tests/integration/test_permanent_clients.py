"""Errors that no retry cures make a dead letter at once: what the real clients raise when a real server answers so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from redisq import RedisQ, Reject, Retry
from redisq.gates.limited import limited_by
from redisq.gates.permanent import is_permanent
from redisq.testing import sandbox
from tests.integration.test_limited_clients import (
    LLM,
    PLAIN,
    SLACK,
    Client,
    error_of,
    pyrogram_error,
    telethon_error,
    use_aiogram,
    use_aiohttp,
    use_discord,
    use_httpx,
    use_requests,
    use_telegram,
)
from tests.platform_answers import Platform, platform

TELEGRAM = [use_aiogram, use_telegram]
BLOCKED = {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}


@pytest.fixture
def server() -> Iterator[Platform]:
    with platform() as found:
        yield found


def answer_of(client: Client, server: Platform, status: int, body: Any = None) -> bool:
    server.status, server.body = status, {} if body is None else body
    return is_permanent(error_of(client, server))


def bad(description: str) -> dict[str, Any]:
    return {"ok": False, "error_code": 400, "description": f"Bad Request: {description}"}


@pytest.mark.parametrize("client", [*TELEGRAM, use_httpx, use_requests])
def test_a_user_who_blocked_the_bot(client: Client, server: Platform) -> None:
    assert answer_of(client, server, 403, BLOCKED)


@pytest.mark.parametrize("client", [*TELEGRAM, use_httpx, use_requests])
@pytest.mark.parametrize(
    "description", ["chat not found", "message is not modified", "can't parse entities", "message is too long"]
)
def test_a_request_that_telegram_does_not_understand(client: Client, description: str, server: Platform) -> None:
    assert answer_of(client, server, 400, bad(description))


@pytest.mark.parametrize("client", [*TELEGRAM, use_httpx])
@pytest.mark.parametrize(
    "description", ["failed to get HTTP URL content", "WEBPAGE_CURL_FAILED", "wrong type of the web page content"]
)
def test_a_400_of_telegram_that_passes(client: Client, description: str, server: Platform) -> None:
    assert not answer_of(client, server, 400, bad(description))


@pytest.mark.parametrize("client", TELEGRAM)
@pytest.mark.parametrize("status", [401, 404, 409, 500, 502])
def test_other_answers_of_telegram_are_tried_again(client: Client, status: int, server: Platform) -> None:
    assert not answer_of(client, server, status, {"ok": False, "error_code": status, "description": "no"})


@pytest.mark.parametrize("error", [telethon_error, pyrogram_error])
def test_telegrams_own_protocol(error: Callable[[int, str], Exception]) -> None:
    for code, message in ((400, "USER_IS_BLOCKED"), (400, "PEER_ID_INVALID"), (403, "CHAT_WRITE_FORBIDDEN")):
        assert is_permanent(error(code, message)), message
    for code, message in ((400, "PEER_FLOOD"), (401, "SESSION_REVOKED"), (420, "FLOOD_WAIT_3"), (400, "WEBPAGE_CURL_FAILED")):
        assert not is_permanent(error(code, message)), message


@pytest.mark.parametrize("client", [use_discord, use_httpx, use_requests])
def test_a_user_of_discord_who_takes_no_messages(client: Client, server: Platform) -> None:
    assert answer_of(client, server, 403, {"code": 50007, "message": "Cannot send messages to this user"})


def test_other_answers_of_discord(server: Platform) -> None:
    assert answer_of(use_discord, server, 400, {"code": 50035, "message": "Invalid Form Body"})
    assert answer_of(use_discord, server, 403, {"code": 50013, "message": "Missing Permissions"})
    assert not answer_of(use_discord, server, 403, {"code": 40003, "message": "You are opening direct messages too fast"})
    assert not answer_of(use_discord, server, 401, {"code": 0, "message": "401: Unauthorized"})


@pytest.mark.parametrize("client", SLACK)
def test_answers_of_slack(client: Client, server: Platform) -> None:
    for error in ("channel_not_found", "is_archived", "msg_too_long", "user_not_found"):
        assert answer_of(client, server, 200, {"ok": False, "error": error}), error
    for error in ("internal_error", "service_unavailable", "ratelimited", "token_revoked", "invalid_auth", "some_new_error"):
        assert not answer_of(client, server, 200, {"ok": False, "error": error}), error


@pytest.mark.parametrize("client", PLAIN)
def test_plain_http_clients(client: Client, server: Platform) -> None:
    assert answer_of(client, server, 400)
    for status in (401, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503):
        assert not answer_of(client, server, status), status


def test_an_answer_that_aiohttp_cannot_read_is_tried_again(server: Platform) -> None:
    import aiohttp

    server.headers = {"Transfer-Encoding": "nonsense", "Bad header name": "1"}
    error = error_of(use_aiohttp, server)
    assert isinstance(error, aiohttp.ClientResponseError)
    assert error.status == 400
    assert not is_permanent(error)


@pytest.mark.parametrize(
    ("client", "status"),
    # discord.py itself tries again for half a minute after a 500.
    [*product([*TELEGRAM, *PLAIN, *SLACK, *LLM], [429, 500, 503]), (use_discord, 429), (use_discord, 503)],
)
def test_limits_and_faults_of_the_server_never_are(client: Client, status: int, server: Platform) -> None:
    body = {"ok": False, "error": "internal_error", "error_code": status, "description": "no"}
    assert not answer_of(client, server, status, body)


def test_it_is_looked_through_as_limits_are(server: Platform) -> None:
    server.status, server.body = 403, BLOCKED
    blocked = error_of(use_aiogram, server)
    wrapped = RuntimeError("could not send")
    wrapped.__cause__ = blocked
    assert is_permanent(wrapped)
    assert is_permanent(ExceptionGroup("", [blocked, wrapped]))
    assert not is_permanent(ExceptionGroup("", [blocked, KeyError()]))
    for decided in (Retry("soon"), Reject("no")):
        decided.__cause__ = blocked
        assert not is_permanent(decided)
    bug = KeyError()
    bug.__context__ = blocked
    assert not is_permanent(bug)
    assert limited_by(blocked) is None


def test_they_make_a_dead_letter_at_once_unless_the_task_wants_them_retried(server: Platform) -> None:
    from aiogram.exceptions import TelegramBadRequest

    server.status, server.body = 403, BLOCKED
    app = RedisQ("bot")

    @app.task(name="send", max_retries=3)
    async def send() -> None:
        await use_aiogram(server.url)

    @app.task(name="insist", max_retries=1, retry_permanent=True)
    async def insist() -> None:
        await use_aiogram(server.url)

    @app.task(name="named", max_retries=1, autoretry_for=(TelegramBadRequest, type(error_of(use_aiogram, server))))
    async def named() -> None:
        await use_aiogram(server.url)

    with sandbox(app) as box:
        send.delay()
        assert tuple(box.drain()) == (0, 0, 1)
        (letter,) = box.dead()
        assert (letter.reason, letter.attempt) == ("permanent", 1)
        assert "blocked by the user" in letter.error
        for task in (insist, named):
            task.delay()
            assert box.drain(delayed=True).retried == 1
        assert [letter.reason for letter in box.dead()] == ["permanent", "exhausted", "exhausted"]
