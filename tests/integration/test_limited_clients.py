"""What the real clients raise when a real server answers 429 is known, with the wait that it asks for.

Each client is imported by the function that uses it: all together take seconds, in every process that collects tests.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from redisq.gates.limited import RateLimit, limited_by
from tests.platform_answers import Platform, platform

TOKEN = "42:TEST"
TELEGRAM = {
    "ok": False,
    "error_code": 429,
    "description": "Too Many Requests: retry after 35",
    "parameters": {"retry_after": 35},
}


@pytest.fixture
def server() -> Iterator[Platform]:
    with platform() as found:
        yield found


def use_httpx(url: str) -> None:
    import httpx

    httpx.get(url).raise_for_status()


def use_requests(url: str) -> None:
    import requests

    requests.get(url, timeout=10).raise_for_status()


async def use_async_httpx(url: str) -> None:
    import httpx

    async with httpx.AsyncClient() as client:
        (await client.get(url)).raise_for_status()


async def use_aiohttp(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
        pass


async def use_aiogram(url: str) -> None:
    from aiogram import Bot
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer

    async with Bot(TOKEN, AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        await bot.send_message(7, "hi")


async def use_aiogram_without_a_chat(url: str) -> None:
    from aiogram import Bot
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer

    async with Bot(TOKEN, AiohttpSession(api=TelegramAPIServer.from_base(url))) as bot:
        await bot.get_me()


async def use_telegram(url: str) -> None:
    import telegram

    # The request is made and closed by hand: `async with bot` asks for getMe first.
    bot = telegram.Bot(TOKEN, base_url=f"{url}/bot")
    request = bot._request[1]
    await request.initialize()
    try:
        await bot.send_message(7, "hi")
    finally:
        await request.shutdown()


def use_slack(url: str) -> None:
    import slack_sdk

    slack_sdk.WebClient("xoxb-test", base_url=f"{url}/").chat_postMessage(channel="C1", text="hi")


async def use_async_slack(url: str) -> None:
    from slack_sdk.web.async_client import AsyncWebClient

    await AsyncWebClient("xoxb-test", base_url=f"{url}/").chat_postMessage(channel="C1", text="hi")


async def use_discord(url: str) -> None:
    import aiohttp
    import discord

    client = discord.http.HTTPClient(asyncio.get_running_loop(), max_ratelimit_timeout=30)
    route = discord.http.Route("POST", "/channels/{channel_id}/messages", channel_id=7)
    route.url = f"{url}{route.path}"
    # What `static_login` does before it asks who the bot is.
    client.connector = aiohttp.TCPConnector()
    client._HTTPClient__session = aiohttp.ClientSession(connector=client.connector)
    client._global_over = asyncio.Event()
    client._global_over.set()
    try:
        await client.request(route, json={"content": "hi"})
    finally:
        await client.close()


def use_openai(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=url, api_key="test", max_retries=0) as client:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])


async def use_async_openai(url: str) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="test", max_retries=0) as client:
        await client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])


def use_anthropic(url: str) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=url, api_key="test", max_retries=0) as client:
        client.messages.create(model="claude", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


def use_google(url: str) -> None:
    import google.api_core.exceptions
    import requests

    raise google.api_core.exceptions.from_http_response(requests.get(url, timeout=10))


def use_google_discovery(url: str) -> None:
    import googleapiclient.http
    import httplib2

    googleapiclient.http.HttpRequest(httplib2.Http(), lambda _, content: content, url).execute()


def use_boto(url: str) -> None:
    import boto3
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("dynamodb", "eu-central-1", endpoint_url=url, config=config, **keys)
    try:
        client.list_tables()
    finally:
        client.close()


async def use_nio(url: str) -> None:
    import nio

    client = nio.AsyncClient(url, "@bot:test", config=nio.AsyncClientConfig(max_limit_exceeded=0))
    client.access_token = "test"
    try:
        answer = await client.room_send("!room:test", "m.room.message", {"body": "hi"}, ignore_unverified_devices=True)
    finally:
        await client.close()
    # nio raises nothing, so a handler has to.
    raise RuntimeError(answer)


def telethon_error(code: int, message: str) -> Exception:
    """Return what Telethon raises when Telegram answers so."""
    import telethon

    request = telethon.functions.messages.SendMessageRequest("me", "hi")
    return telethon.errors.rpc_message_to_error(telethon.tl.types.RpcError(code, message), request)


def pyrogram_error(code: int, message: str) -> Exception:
    """Return what Pyrogram raises when Telegram answers so. It asks for an event loop as soon as it is imported."""

    async def error() -> Exception:
        from pyrogram.errors import RPCError
        from pyrogram.raw.functions.messages import SendMessage
        from pyrogram.raw.types import RpcError

        try:
            RPCError.raise_it(RpcError(error_code=code, error_message=message), SendMessage)
        except RPCError as error:
            return error
        raise AssertionError("it raised nothing")

    return asyncio.run(error())


Client = Callable[[str], Any]

PLAIN = [use_httpx, use_async_httpx, use_requests, use_aiohttp]
LLM = [use_openai, use_async_openai, use_anthropic]
SLACK = [use_slack, use_async_slack]


def error_of(client: Client, server: Platform) -> Exception:
    async def wait(answer: Awaitable[None]) -> None:
        await answer

    try:
        answer = client(server.url)
        if answer is not None:
            asyncio.run(wait(answer))
    except Exception as error:  # noqa: BLE001 - whatever it raises
        return error
    raise AssertionError("the client raised nothing")


def answer_of(client: Client, server: Platform) -> RateLimit | None:
    return limited_by(error_of(client, server))


@pytest.mark.parametrize("client", [*PLAIN, *LLM, *SLACK, use_discord])
@pytest.mark.parametrize(
    ("asked", "seconds"), [("7", 7), ("0.25", 0.25), ("-1", None), ("0", None), ("1000000000", 3600), ("soon", None)]
)
def test_retry_after_in_the_headers(client: Client, server: Platform, asked: str, seconds: float | None) -> None:
    server.headers = {"Retry-After": asked}
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == seconds


@pytest.mark.parametrize("client", [*PLAIN, *LLM, *SLACK, use_discord])
def test_a_429_that_says_nothing_more(client: Client, server: Platform) -> None:
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds is None
    assert found.key is None
    assert (
        "429" in str(found.error) or "ratelimited" in str(found.error) or "The request to the Slack API failed" in str(found.error)
    )


@pytest.mark.parametrize("client", [*PLAIN, *LLM])
def test_a_date_is_measured_from_the_servers_own(client: Client, server: Platform) -> None:
    server.headers = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == 30


@pytest.mark.parametrize("client", [*PLAIN, *LLM, *SLACK, use_discord])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_other_refusals_are_no_limits(client: Client, server: Platform, status: int) -> None:
    server.status, server.headers = status, {"Retry-After": "7"}
    assert answer_of(client, server) is None


@pytest.mark.parametrize("client", [*PLAIN, *LLM])
def test_a_503_is_a_limit_if_it_says_when_it_is_back(client: Client, server: Platform) -> None:
    server.status = 503
    assert answer_of(client, server) is None
    server.headers = {"Retry-After": "7"}
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == 7


def test_telegram_by_aiogram(server: Platform) -> None:
    from aiogram.exceptions import TelegramRetryAfter

    server.body = TELEGRAM
    assert isinstance(error_of(use_aiogram, server), TelegramRetryAfter)
    found = answer_of(use_aiogram, server)
    assert found is not None
    assert (found.seconds, found.scope) == (35, "chat")
    found = answer_of(use_aiogram_without_a_chat, server)
    assert found is not None
    assert (found.seconds, found.scope) == (35, None)


# It warns of its own attribute where it makes the error.
@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBDeprecationWarning")
def test_telegram_by_python_telegram_bot(server: Platform) -> None:
    from telegram.error import RetryAfter

    server.body = TELEGRAM
    error = error_of(use_telegram, server)
    assert isinstance(error, RetryAfter)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = limited_by(error)
    assert found is not None
    assert (found.seconds, found.scope) == (35, None)


def test_python_telegram_bot_gives_a_number_or_a_timedelta(monkeypatch: pytest.MonkeyPatch) -> None:
    from telegram.error import RetryAfter

    monkeypatch.setenv("PTB_TIMEDELTA", "true")
    found = limited_by(RetryAfter(35))
    assert found is not None
    assert found.seconds == 35


@pytest.mark.parametrize("client", [use_httpx, use_requests])
def test_telegram_by_a_plain_client_says_it_in_the_body(client: Client, server: Platform) -> None:
    server.body = TELEGRAM
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == 35


@pytest.mark.parametrize("client", SLACK)
def test_slack_limits_a_method(client: Client, server: Platform) -> None:
    from slack_sdk.errors import SlackApiError

    server.headers, server.body = {"Retry-After": "30"}, {"ok": False, "error": "ratelimited"}
    assert isinstance(error_of(client, server), SlackApiError)
    found = answer_of(client, server)
    assert found is not None
    assert (found.seconds, found.scope) == (30, "method")


def test_discord_that_its_library_does_not_wait_for(server: Platform) -> None:
    import discord

    server.headers = {"Via": "1.1 google", "Retry-After": "65"}
    server.body = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}
    assert isinstance(error_of(use_discord, server), discord.RateLimited)
    found = answer_of(use_discord, server)
    assert found is not None
    assert (found.seconds, found.scope) == (64.57, "method")


def test_discord_that_stands_before_its_library(server: Platform) -> None:
    import discord

    server.headers, server.body = {"Retry-After": "600", "Content-Type": "text/html"}, b"banned"
    assert isinstance(error_of(use_discord, server), discord.HTTPException)
    found = answer_of(use_discord, server)
    assert found is not None
    assert (found.seconds, found.scope) == (600, "method")


@pytest.mark.parametrize("client", [use_httpx, use_requests, use_aiohttp, use_discord])
def test_discords_global_limit_is_the_bots(client: Client, server: Platform) -> None:
    server.headers = {"Retry-After": "2", "X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
    found = answer_of(client, server)
    assert found is not None
    assert (found.seconds, found.scope) == (2, "bot")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "20"}, 0.1),
        ({"retry-after-ms": "-1", "retry-after": "2"}, 2),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "90",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            1,
        ),
        ({"x-ratelimit-reset-requests": "120ms"}, 0.12),
    ],
)
@pytest.mark.parametrize("client", [use_openai, use_async_openai])
def test_openai_says_when_its_limits_are_full_again(
    client: Client, server: Platform, headers: dict[str, str], seconds: float
) -> None:
    import openai

    server.headers = headers
    assert isinstance(error_of(client, server), openai.RateLimitError)
    found = answer_of(client, server)
    assert found is not None
    assert found.scope == "model"
    assert found.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("client", [use_openai, use_async_openai, use_httpx, use_requests])
def test_an_account_without_money_is_no_limit(client: Client, server: Platform) -> None:
    server.headers = {"Retry-After": "7"}
    server.body = {
        "error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    }
    assert answer_of(client, server) is None


def test_anthropic_says_when_its_limits_are_full_again(server: Platform) -> None:
    import anthropic

    server.headers = {
        "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "anthropic-ratelimit-requests-remaining": "10",
        "anthropic-ratelimit-requests-reset": "2015-10-21T07:29:00Z",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2015-10-21T07:28:12Z",
    }
    assert isinstance(error_of(use_anthropic, server), anthropic.RateLimitError)
    found = answer_of(use_anthropic, server)
    assert found is not None
    assert (found.seconds, found.scope) == (12, "model")


@pytest.mark.parametrize("client", [use_httpx, use_openai, use_slack])
def test_an_error_raised_from_the_clients_is_looked_through(client: Client, server: Platform) -> None:
    server.headers = {"Retry-After": "7"}
    wrapped = RuntimeError("could not send")
    wrapped.__cause__ = error_of(client, server)
    found = limited_by(wrapped)
    assert found is not None
    assert found.seconds == 7


@pytest.mark.parametrize("error_of_telegram", [telethon_error, pyrogram_error])
@pytest.mark.parametrize(
    ("message", "seconds", "scope"),
    [("FLOOD_WAIT_35", 35, "method"), ("SLOWMODE_WAIT_10", 10, "chat"), ("FLOOD_WAIT_90000", 3600, "method")],
)
def test_flood_waits_of_telegrams_own_protocol(
    error_of_telegram: Callable[[int, str], Exception], message: str, seconds: float, scope: str
) -> None:
    found = limited_by(error_of_telegram(420, message))
    assert found is not None
    assert (found.seconds, found.scope) == (seconds, scope)


@pytest.mark.parametrize("error_of_telegram", [telethon_error, pyrogram_error])
@pytest.mark.parametrize(("code", "message"), [(400, "PEER_ID_INVALID"), (403, "CHAT_WRITE_FORBIDDEN"), (401, "SESSION_REVOKED")])
def test_other_errors_of_telegrams_own_protocol_are_no_limits(
    error_of_telegram: Callable[[int, str], Exception], code: int, message: str
) -> None:
    assert limited_by(error_of_telegram(code, message)) is None


MATRIX = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 2500}


@pytest.mark.parametrize("client", [use_httpx, use_requests, use_nio])
def test_matrix_says_it_in_the_body_in_milliseconds(client: Client, server: Platform) -> None:
    server.body = MATRIX
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == 2.5
    assert "2500" in str(found.error) or client is not use_nio


def test_a_429_that_stands_before_a_matrix_server(server: Platform) -> None:
    server.body = b"slow down"
    found = answer_of(use_nio, server)
    assert found is not None
    assert (found.seconds, found.scope) == (None, "method")


def test_another_answer_of_matrix_is_no_limit(server: Platform) -> None:
    server.status, server.body = 403, {"errcode": "M_FORBIDDEN", "error": "not in the room"}
    assert answer_of(use_nio, server) is None


GOOGLE = {
    "error": {
        "code": 429,
        "message": "Quota exceeded",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37.5s"},
        ],
    }
}


@pytest.mark.parametrize("client", [use_google, use_google_discovery, use_httpx])
def test_google_says_it_among_the_details_of_its_error(client: Client, server: Platform) -> None:
    server.body = GOOGLE
    found = answer_of(client, server)
    assert found is not None
    assert found.seconds == 37.5
    assert found.scope == (None if client is use_httpx else "method")


@pytest.mark.parametrize("client", [use_google, use_google_discovery, use_boto])
@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "7"}, 7), ({}, None)])
def test_a_429_of_a_cloud(client: Client, server: Platform, headers: dict[str, str], seconds: float | None) -> None:
    server.headers = headers
    found = answer_of(client, server)
    assert found is not None
    assert (found.seconds, found.scope) == (seconds, "method")


@pytest.mark.parametrize("kind", ["ResourceExhausted", "TooManyRequests"])
def test_google_by_grpc(kind: str) -> None:
    from google.api_core import exceptions
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.error_details_pb2 import Help, RetryInfo

    make = getattr(exceptions, kind)
    details = [Help(), RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000))]
    found = limited_by(make("quota exceeded", details=details))
    assert found is not None
    assert (found.seconds, found.scope) == (3.5, "method")
    found = limited_by(make("quota exceeded"))
    assert found is not None
    assert found.seconds is None


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded"])
def test_older_google_apis_say_403(reason: str, server: Platform) -> None:
    server.status, server.body = 403, {"error": {"code": 403, "errors": [{"domain": "usageLimits", "reason": reason}]}}
    found = answer_of(use_google_discovery, server)
    assert found is not None
    assert found.scope == "method"
    server.body = {"error": {"code": 403, "errors": [{"domain": "global", "reason": "forbidden"}]}}
    assert answer_of(use_google_discovery, server) is None


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"])
def test_aws_throttles_with_a_400(code: str, server: Platform) -> None:
    server.status, server.body = 400, {"__type": f"com.amazonaws#{code}", "message": "Rate exceeded"}
    server.headers = {"Retry-After": "4"}
    found = answer_of(use_boto, server)
    assert found is not None
    assert (found.seconds, found.scope) == (4, "method")


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "LimitExceededException"])
def test_other_errors_of_aws_are_no_limits(code: str, server: Platform) -> None:
    server.status, server.body = 400, {"__type": f"com.amazonaws#{code}", "message": "no"}
    assert answer_of(use_boto, server) is None
