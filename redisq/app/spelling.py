"""Refuse options that nothing has, with a hint: a misspelt one, another library's name, one that belongs elsewhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from redisq.errors import ConfigError

__all__ = ["APP_HINTS", "CALL_HINTS", "OPTIONS_OF_A_CALL", "TASK_HINTS", "check_options", "closest", "known_options"]

F = TypeVar("F", bound=Callable[..., Any])

#: Options of `.options()` that may stand in `delay(...)` by mistake. What else it has are names that handlers use themselves.
OPTIONS_OF_A_CALL = frozenset(("countdown", "eta", "expires", "priority", "queue", "dedupe_key", "dedupe_ttl"))

_OF_A_CALL = "it is said for each call: .options({}=...).delay(...)"
#: How users of Celery, Dramatiq, RQ, arq, Huey and BullMQ call an option of @task -> what it is here.
TASK_HINTS: Mapping[str, str] = {
    **{name: _OF_A_CALL.format(name) for name in ("countdown", "eta")},
    **dict.fromkeys(("delay", "defer", "defer_by"), _OF_A_CALL.format("countdown")),
    **dict.fromkeys(("retries", "max_tries", "attempts", "retry"), "did you mean max_retries=?"),
    **dict.fromkeys(("retry_delay", "default_retry_delay", "min_backoff", "backoff"), "did you mean retry_backoff=, in seconds?"),
    **dict.fromkeys(("backoff_max", "max_backoff"), "did you mean retry_backoff_max=, in seconds?"),
    **dict.fromkeys(("retry_for", "retry_on", "retry_when"), "did you mean autoretry_for=, a tuple of classes?"),
    "throws": "did you mean dont_retry_for=, a tuple of classes?",
    **dict.fromkeys(("time_limit", "job_timeout", "task_timeout"), "did you mean timeout=, in seconds?"),
    "soft_time_limit": "did you mean soft_timeout=, in seconds?",
    **dict.fromkeys(("acks_late", "acks_early"), 'say ack="late", which is the default, or ack="early"'),
    **dict.fromkeys(("rate_limit", "limit", "throttle"), 'say limits=["name:10/s"]'),
    **dict.fromkeys(("ignore_result", "store_result", "store_results", "result_expires"), "say result_ttl=, in seconds"),
    **dict.fromkeys(("unique", "unique_for", "deduplication", "lock_task"), 'say dedupe_key="{argument}"'),
    **dict.fromkeys(("queue_name", "routing_key"), "did you mean queue=?"),
}
#: The same for options of a call.
CALL_HINTS: Mapping[str, str] = {
    **dict.fromkeys(("delay", "defer", "defer_by", "in_", "schedule"), "did you mean countdown=, in seconds?"),
    **dict.fromkeys(("at", "defer_until", "run_at"), "did you mean eta=, a datetime?"),
    **dict.fromkeys(("task_id", "job_id", "jid", "id"), "redisq makes the ids; to send a call once only say dedupe_key="),
    **dict.fromkeys(("queue_name", "routing_key", "exchange"), "did you mean queue=?"),
    **dict.fromkeys(("ttl", "expire"), "did you mean expires=?"),
}
#: The same for options of the app.
APP_HINTS: Mapping[str, str] = {
    **dict.fromkeys(("broker", "broker_url", "redis_url", "redis", "dsn", "uri", "host", "port", "password", "db"), "say url="),
    **dict.fromkeys(("backend", "result_backend"), "results are in the same Redis: say @task(result_ttl=60)"),
    **dict.fromkeys(("prefix", "key_prefix", "global_keyprefix"), "did you mean namespace=?"),
    **dict.fromkeys(("visibility_timeout", "lock_duration", "lease_time"), "did you mean lease=, in seconds?"),
    **dict.fromkeys(("concurrency", "threads", "processes", "queues"), "it is an option of redisq worker and of Worker()"),
}


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that is most like this one; None: none is."""
    return next(iter(get_close_matches(name, list(known), 1)), None)


def check_options(where: str, given: Iterable[str], known: Collection[str], hints: Mapping[str, str] | None = None) -> None:
    """Accept options that there are.

    Args:
        where: What has the options, for the error.
        given: Their names.
        known: The names that there are.
        hints: What to say of some others.

    Raises:
        ConfigError: There is no such option; says which was meant.
    """
    for name in given:
        if name in known:
            continue
        hint = (hints or {}).get(name)
        if hint is None:
            meant = closest(name, known)
            hint = f"did you mean {meant}=?" if meant else f"it has {', '.join(sorted(known))}"
        raise ConfigError(f"{where} has no option {name!r}: {hint}")


def known_options(where: str, hints: Callable[[Any], Mapping[str, str]]) -> Callable[[F], F]:
    """Check the names of a method's keyword arguments, and say what was meant.

    Args:
        where: What has the options, for the error.
        hints: Returns what to say of some names, given the object.
    """

    def decorate(method: F) -> F:
        known = frozenset(inspect.signature(method).parameters) - {"self"}

        @functools.wraps(method)
        def checked(self: Any, *args: Any, **options: Any) -> Any:
            if not known.issuperset(options):
                check_options(where, options, known, hints(self))
            return method(self, *args, **options)

        return cast("F", checked)

    return decorate
