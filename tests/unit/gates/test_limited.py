"""What counts as a platform's "too many requests", and what does not; real clients: tests/integration/test_limited_clients.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisq.errors import ConfigError, RateLimited, Reject, Retry
from redisq.gates.limited import limited_by
from redisq.gates.permanent import is_permanent
from redisq.gates.retry_after import LONGEST, SHORTEST, bounded, seconds_asked_for
from redisq.redact import error_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Answer(Exception):
    def __init__(self, status: int = 429, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def chain(*errors: BaseException) -> BaseException:
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def test_a_handler_that_says_so_itself() -> None:
    found = limited_by(RateLimited(7, key="chat:42"))
    assert found is not None
    assert (found.seconds, found.key) == (7, "chat:42")
    assert "chat:42" in str(found.error)
    found = limited_by(RateLimited(timedelta(minutes=2)))
    assert found is not None
    assert (found.seconds, found.key) == (120, None)


@pytest.mark.parametrize("asked", [-1, 0, None, float("nan"), "soon", True])
def test_a_handler_that_passes_nonsense_on_is_limited_for_a_time_it_did_not_say(asked: Any) -> None:
    found = limited_by(RateLimited(asked))
    assert found is not None
    assert found.seconds is None


@pytest.mark.parametrize("key", ["", 42])
def test_the_key_of_a_limit_is_text(key: Any) -> None:
    with pytest.raises(ConfigError, match="want the name of a limit"):
        RateLimited(1, key=key)


def test_an_attribute_called_retry_after_proves_nothing() -> None:
    class Busy(Exception):
        retry_after = 7

    class RetryAfter(Exception):  # the name alone, from another package
        retry_after = 7

    assert limited_by(Busy()) is None
    assert limited_by(RetryAfter()) is None


@pytest.mark.parametrize("status", [True, "429", 200, 500, None])
def test_only_the_number_429_is_429(status: Any) -> None:
    assert limited_by(Answer(status, Retry_After="7")) is None


def test_an_error_raised_from_a_limit_is_one() -> None:
    assert limited_by(chain(RuntimeError(), KeyError(), Answer()))
    assert limited_by(chain(RuntimeError(), RateLimited(7)))


def test_retry_and_reject_are_the_handlers_own_decision() -> None:
    assert limited_by(chain(Retry(), Answer())) is None
    assert limited_by(chain(Reject(), Answer())) is None


def test_an_error_in_the_handling_of_a_limit_is_an_error() -> None:
    bug = KeyError("a bug")
    bug.__context__ = Answer()
    assert limited_by(bug) is None


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, other = RuntimeError(), RuntimeError()
    assert limited_by(chain(one, other, one)) is None


def test_a_group_is_a_limit_if_all_in_it_are_and_for_the_longest_time() -> None:
    found = limited_by(ExceptionGroup("", [Answer(Retry_After="2"), Answer(Retry_After="9"), Answer()]))
    assert found is not None
    assert found.seconds == 9
    assert limited_by(ExceptionGroup("", [Answer(), KeyError()])) is None


def test_foreign_properties_that_fail_do_no_harm() -> None:
    class Nasty(Exception):
        status_code = 429

        @property
        def response(self) -> Any:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

    found = limited_by(Nasty())
    assert found is not None
    assert error_text(found.error) == "Nasty"


class Breaks:
    """Breaks whatever is done to it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("==")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __str__(self) -> str:
        raise RuntimeError("str")


class Odd(Mapping[Any, Any]):
    """A map that has what it says, and breaks when that is asked for."""

    def __getitem__(self, name: Any) -> Any:
        raise RuntimeError("item")

    def __iter__(self) -> Iterator[Any]:
        return iter(("retry-after",))

    def __len__(self) -> int:
        return 1


LOOKED_AT = (
    "response", "resp", "status_code", "status", "headers", "data", "_content", "content", "code", "type", "errcode", "method",
    "transport_response", "retry_after_ms", "retry_after", "_retry_after", "seconds", "value", "details", "args", "__cause__",
)  # fmt: skip
BEYOND = 10**400
ODD = (Breaks(), Odd(), {Breaks: Breaks()}, [Breaks()], [], {}, 429, BEYOND, -1, float("nan"), b'{"retry_after": %d}' % BEYOND)
CLASSES = [(__name__, "Odd"), ("aiogram", "TelegramRetryAfter"), ("aiogram", "TelegramBadRequest"), ("google", "TooManyRequests")]
CLASSES += [("discord", "HTTPException"), ("slack_sdk", "SlackApiError"), ("httpx", "HTTPStatusError"), ("botocore", "ClientError")]


@pytest.mark.parametrize(("package", "name"), CLASSES)
@given(attributes=st.dictionaries(st.sampled_from(LOOKED_AT), st.sampled_from(range(len(ODD))), min_size=1), status=st.booleans())
def test_no_error_breaks_whoever_looks_at_it(package: str, name: str, attributes: dict[str, int], status: bool) -> None:
    has = {attribute: ODD[number] for attribute, number in attributes.items()}
    made = type(name, (Exception,), {"__module__": package, **({"status_code": 429} if status else {}), **has})()
    limited_by(made)
    is_permanent(made)
    limited_by(chain(RuntimeError(), made))
    is_permanent(ExceptionGroup("", [made]))


@pytest.mark.parametrize("headers", [Odd(), {"retry-after": Breaks()}], ids=["map", "value"])
def test_an_error_whose_headers_break_is_no_limit(headers: Any) -> None:
    error = Answer()
    error.headers = headers
    assert limited_by(error) is None
    assert limited_by(chain(RuntimeError(), error)) is None
    assert limited_by(ExceptionGroup("", [Answer(), error])) is None


def test_what_has_items_of_another_kind_has_no_headers() -> None:
    class Page:
        status = 429

        def items(self) -> list[int]:
            return [1, 2]

    error = RuntimeError("refused")
    error.response = Page()  # type: ignore[attr-defined]
    assert limited_by(error) is not None


@pytest.mark.parametrize("name", ["retry_after", "retry_after_ms"])
def test_a_wait_beyond_all_numbers_is_the_longest(name: str) -> None:
    assert seconds_asked_for({}, {name: BEYOND}) == LONGEST


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": "Thu, 01 Jan 2026 00:00:50 GMT"}, 10),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, None),
        ({"retry-after": "2026-01-01T00:00:30Z"}, 30),
        ({"retry-after": "-1", "x-ratelimit-reset-after": "1.5"}, 1.5),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, LONGEST),
        ({"retry-after": "0.001"}, SHORTEST),
        ({"retry-after": ""}, None),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, LONGEST),
        ({"x-ratelimit-reset-tokens": "2m3.5s"}, 123.5),
        ({"x-ratelimit-reset-tokens": "1m20ms"}, 60.02),
        ({"x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-reset-tokens": ""}, None),
    ],
)
def test_the_wait_in_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_asked_for(headers, {}, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"parameters": {"retry_after": 35}}, 35),
        ({"retry_after": 0.3}, 0.3),
        ({"parameters": None}, None),
        ({"parameters": [1]}, None),
        ({"retry_after": "x"}, None),
    ],
)
def test_the_wait_in_a_body(body: dict[str, Any], seconds: float | None) -> None:
    assert seconds_asked_for({}, body, NOW) == seconds


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.text(), st.none()))
def test_a_wait_is_always_bounded(asked: Any) -> None:
    found = bounded(asked)
    assert found is None or SHORTEST <= found <= LONGEST


@given(st.text(), st.text())
def test_no_header_breaks_it(one: str, other: str) -> None:
    found = seconds_asked_for({"retry-after": one, "date": other, "x-ratelimit-reset-x": one}, {}, NOW)
    assert found is None or SHORTEST <= found <= LONGEST
