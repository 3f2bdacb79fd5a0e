"""The hooks: when each is called, in which order, and what their errors do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import pytest

from redisq import Context, Middleware, RateLimited, RedisQ, Reject, Retry
from redisq.app.hooks import Hooks
from redisq.errors import ArgumentsError, CallRefused, ConfigError
from redisq.middleware import Delivery, End, LogJob, LogRuns, OutgoingCall
from redisq.testing import Sandbox, sandbox

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Recorder(Middleware):
    """Writes down each call of each hook."""

    def __init__(self, lines: list[str], name: str = "one") -> None:
        self.lines = lines
        self.name = name

    def enqueue(self, call: OutgoingCall) -> OutgoingCall:
        self.lines.append(f"{self.name} enqueue {call.task}")
        return call

    def claim(self, queue: str, delivery: Delivery) -> None:
        self.lines.append(f"{self.name} claim {queue} {delivery.meta.attempt}")

    def run(self, context: Context) -> Generator[None, Any, Any]:
        self.lines.append(f"{self.name} before {context.task}")
        try:
            returned = yield
        except BaseException as error:
            self.lines.append(f"{self.name} raised {error}")
            raise
        self.lines.append(f"{self.name} returned {returned}")

    def settle(self, end: End) -> None:
        self.lines.append(f"{self.name} settle {end.op}")

    def retry(self, end: End) -> None:
        self.lines.append(f"{self.name} retry {end.error} in {end.delay:g}")

    def dead(self, end: End) -> None:
        self.lines.append(f"{self.name} dead {end.reason} {end.error}")


class Bot:
    """An app with a task of each kind, in a sandbox."""

    def __init__(self, *middleware: Middleware) -> None:
        self.app = RedisQ("bot", url="redis://nowhere.invalid", middleware=middleware)
        self.runs = 0
        task = self.app.task(max_retries=1, retry_backoff=8, result_ttl=60)
        self.say = task(self._say)
        self.say_sync = task(self._say_sync)
        self.early = self.app.task(ack="early", name="early")(self._say_early)

    async def _say(self, text: str) -> str:
        return self._said(text)

    def _say_sync(self, text: str) -> str:
        return self._said(text)

    def _say_early(self, text: str) -> str:
        return self._said(text)

    def _said(self, text: str) -> str:
        self.runs += 1
        if text == "reject":
            raise Reject("no")
        if text == "fail":
            raise ValueError("no")
        if text == "retry":
            raise Retry("wait", countdown=5)
        return f"{text} by {WHO.get()}"


@pytest.fixture(params=["worker", "eager"])
def eager(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "eager")


@pytest.fixture(params=["_say", "_say_sync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(bot: Bot, kind: str, text: str, *, eager: bool = False, then: Callable[[Sandbox, Any], None] | None = None) -> None:
    """Send one call and let it run, retries too."""
    with sandbox(bot.app, eager=eager, propagate=False) as box:
        job = bot.app.find_task(kind).delay(text)
        box.drain(delayed=True)
        if then:
            then(box, job)


def result_is(value: object) -> Callable[[Sandbox, Any], None]:
    def check(_: Sandbox, job: Any) -> None:
        assert job.get(timeout=0) == value

    return check


def dead_is(reason: str, error: str) -> Callable[[Sandbox, Any], None]:
    def check(box: Sandbox, _: Any) -> None:
        assert [(call.reason, call.error) for call in box.dead()] == [(reason, error)]

    return check


def test_all_hooks_of_a_job_that_is_done_in_their_order(kind: str, eager: bool) -> None:
    lines: list[str] = []
    run(Bot(Recorder(lines, "outer"), Recorder(lines, "inner")), kind, "hi", eager=eager)
    assert lines == [
        f"outer enqueue {kind}",
        f"inner enqueue {kind}",
        "outer claim bot 1",
        "inner claim bot 1",
        f"outer before {kind}",
        f"inner before {kind}",
        "inner returned hi by nobody",
        "outer returned hi by nobody",
        "outer settle ack",
        "inner settle ack",
    ]


def test_a_failure_is_told_as_a_retry_and_as_a_dead_letter(kind: str, eager: bool) -> None:
    lines: list[str] = []
    run(Bot(Recorder(lines)), kind, "retry", eager=eager)
    assert lines[1:] == [
        *("one claim bot 1", f"one before {kind}", "one raised wait", "one settle retry", "one retry Retry: wait in 5"),
        *("one claim bot 2", f"one before {kind}", "one raised wait", "one settle dead", "one dead exhausted Retry: wait"),
    ]


def test_an_early_ack_is_told_before_the_handler_runs(eager: bool) -> None:
    lines: list[str] = []
    run(Bot(Recorder(lines)), "early", "fail", eager=eager)
    assert lines == ["one enqueue early", "one claim bot 1", "one settle ack", "one before early", "one raised no"]


def test_a_message_that_nobody_knows_is_told_without_a_task() -> None:
    ends: list[End] = []

    class Keep(Middleware):
        def settle(self, end: End) -> None:
            ends.append(end)

    bot = Bot(Keep())
    with sandbox(bot.app) as box:
        job = bot.app.send("unheard_of")
        box.drain(queue="bot")
    assert [(end.id, end.task, end.op, end.reason) for end in ends] == [(job.id, None, "park", "unknown_task")]


def test_the_end_has_the_run_time_and_no_result() -> None:
    ends: list[End] = []

    class Keep(Middleware):
        def settle(self, end: End) -> None:
            ends.append(end)

    run(Bot(Keep()), "_say", "hi")
    assert ends[0].run_time > 0
    assert (ends[0].reason, ends[0].error, ends[0].delay) == ("", "", 0.0)


# --- run


class Wrap(Middleware):
    """Does in `run` what a test gives it."""

    def __init__(self, steps: Callable[[Context], Generator[None, Any, Any]]) -> None:
        self.steps = steps

    def run(self, context: Context) -> Generator[None, Any, Any]:
        return (yield from self.steps(context))


def test_context_variables_reach_the_handler_and_no_other(kind: str) -> None:
    def steps(context: Context) -> Generator[None, Any, Any]:
        if context.id == first.id:
            WHO.set("me")
        yield

    bot = Bot(Wrap(steps))
    with sandbox(bot.app) as box:
        first = bot.app.find_task(kind).delay("hi")
        second = bot.app.find_task(kind).delay("hi")
        box.drain()
        assert first.get(0) == "hi by me"
        assert second.get(0) == "hi by nobody"
    assert WHO.get() == "nobody"


def test_a_value_replaces_the_result(kind: str, eager: bool) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        returned = yield
        return returned.upper()

    run(Bot(Wrap(steps)), kind, "hi", eager=eager, then=result_is("HI BY NOBODY"))


def test_a_hook_that_raises_nothing_makes_a_success(kind: str, eager: bool) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        try:
            yield
        except ValueError:
            return "never mind"

    run(Bot(Wrap(steps)), kind, "fail", eager=eager, then=result_is("never mind"))


def test_another_error_stands_in_its_place(kind: str, eager: bool) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        try:
            yield
        except ValueError as error:
            raise Reject("for good") from error

    run(Bot(Wrap(steps)), kind, "fail", eager=eager, then=dead_is("rejected", "Reject: for good"))


def test_without_a_yield_the_handler_is_not_called(kind: str, eager: bool) -> None:
    lines: list[str] = []

    def steps(_: Context) -> Generator[None, Any, Any]:
        if lines:
            return "known"
        yield

    bot = Bot(Recorder(lines, "outer"), Wrap(steps), Recorder(lines, "inner"))
    run(bot, kind, "hi", eager=eager, then=result_is("known"))
    assert bot.runs == 0
    assert "outer returned known" in lines
    assert not any(line.startswith("inner before") for line in lines)


def test_an_error_before_the_handler_fails_the_run(kind: str, eager: bool) -> None:
    lines: list[str] = []

    def steps(_: Context) -> Generator[None, Any, Any]:
        raise KeyError("setup")
        yield

    bot = Bot(Recorder(lines, "outer"), Wrap(steps))
    run(bot, kind, "hi", eager=eager, then=dead_is("exhausted", "KeyError: 'setup'"))
    assert bot.runs == 0
    assert lines.count("outer raised 'setup'") == 2


def test_an_outer_hook_can_save_what_an_inner_one_broke() -> None:
    def save(_: Context) -> Generator[None, Any, Any]:
        try:
            yield
        except KeyError:
            return "saved"

    def broken(_: Context) -> Generator[None, Any, Any]:
        raise KeyError("setup")
        yield

    bot = Bot(Wrap(save), Wrap(broken))
    run(bot, "_say", "hi", then=result_is("saved"))
    assert bot.runs == 0


def test_trouble_after_a_success_is_no_failure(kind: str, eager: bool, caplog: pytest.LogCaptureFixture) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        yield
        raise KeyError("metrics")

    bot = Bot(Wrap(steps))
    run(bot, kind, "hi", eager=eager, then=result_is("hi by nobody"))
    assert bot.runs == 1
    assert [record.getMessage() for record in caplog.records if record.name == "bot.middleware"] == [
        "Wrap.run failed, the message is not touched by that; its next errors are logged at level DEBUG"
    ]


def test_a_verdict_after_a_success_counts(kind: str, eager: bool) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        yield
        raise Reject("not good enough")

    run(Bot(Wrap(steps)), kind, "hi", eager=eager, then=dead_is("rejected", "Reject: not good enough"))


def test_a_refusal_that_a_hook_finds_in_the_answer_counts_too(kind: str, eager: bool) -> None:
    answers = ["429", "ok"]

    def steps(_: Context) -> Generator[None, Any, Any]:
        yield
        if answers.pop(0) == "429":
            raise RateLimited(1)

    bot = Bot(Wrap(steps))
    run(bot, kind, "hi", eager=eager, then=result_is("hi by nobody"))
    assert bot.runs == 2


def test_two_yields_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    def steps(_: Context) -> Generator[None, Any, Any]:
        yield
        yield

    run(Bot(Wrap(steps)), "_say", "hi", then=result_is("hi by nobody"))
    assert "Wrap.run failed" in caplog.text
    assert "yielded twice" in caplog.text


# --- observers


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(1), asyncio.CancelledError()])
@pytest.mark.parametrize("hook", ["claim", "settle", "retry", "dead"])
def test_an_observer_harms_no_message(hook: str, error: BaseException, eager: bool, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    def broken(self: Middleware, *_: object) -> None:
        raise error

    bad = type("Bad", (Middleware,), {hook: broken})()
    caplog.set_level(logging.DEBUG, logger="bot.middleware")
    run(Bot(bad, Recorder(lines)), "_say", "retry", eager=eager, then=dead_is("exhausted", "Retry: wait"))
    assert lines[-1] == "one dead exhausted Retry: wait"
    records = [record for record in caplog.records if record.name == "bot.middleware"]
    assert [record.levelname for record in records] == (["ERROR"] if hook in ("retry", "dead") else ["ERROR", "DEBUG"])
    assert all(record.getMessage().startswith(f"Bad.{hook} failed") and record.exc_info for record in records)


# --- enqueue


class Send(Middleware):
    """Does in `enqueue` what a test gives it."""

    def __init__(self, change: Callable[[OutgoingCall], Any]) -> None:
        self.change = change

    def enqueue(self, call: OutgoingCall) -> OutgoingCall:
        changed: OutgoingCall = self.change(call)
        return changed


def test_enqueue_replaces_arguments_and_options() -> None:
    bot = Bot(Send(lambda call: call.replace(args=("bye",), countdown=60)), Send(lambda call: call.replace(priority=9)))
    with sandbox(bot.app) as box:
        bot.say.delay("hi")
        bot.say.delay_many([("a",), ("b",)])
        asyncio.run(_send_async(bot))
        calls = box.enqueued()
        assert [call.args for call in calls] == [("bye",)] * 4
        assert [call.state for call in calls] == ["delayed"] * 4


async def _send_async(bot: Bot) -> None:
    await bot.say.adelay("hi")
    await bot.app.aclose()


def test_each_call_of_many_has_its_own_options() -> None:
    bot = Bot(Send(lambda call: call.replace(countdown=60) if call.args == ("later",) else call))
    with sandbox(bot.app) as box:
        bot.say.delay_many([("now",), ("later",), ("now",)])
        assert [(call.args[0], call.state) for call in box.enqueued()] == [
            *(("now", "waiting"), ("now", "waiting"), ("later", "delayed"))
        ]


def test_a_call_cannot_be_changed_in_place() -> None:
    def change(call: OutgoingCall) -> OutgoingCall:
        call.kwargs["text"] = "bye"  # type: ignore[index]
        return call

    bot = Bot(Send(change))
    with sandbox(bot.app) as box:
        with pytest.raises(CallRefused, match="TypeError"):
            bot.say.delay(text="hi")
        assert box.enqueued() == []


def test_other_arguments_have_to_fit() -> None:
    bot = Bot(Send(lambda call: call.replace(args=(1, 2, 3))))
    with sandbox(bot.app), pytest.raises(ArgumentsError):
        bot.say.delay("hi")


def test_enqueue_refuses_with_an_error_of_its_own() -> None:
    class TooManyError(CallRefused):
        """The user has asked too often."""

    def refuse(call: OutgoingCall) -> OutgoingCall:
        if call.args == ("no",):
            raise TooManyError("ask later")
        return call

    bot = Bot(Send(refuse))
    with sandbox(bot.app) as box:
        with pytest.raises(TooManyError, match="ask later"):
            bot.say.delay("no")
        with pytest.raises(TooManyError):
            bot.say.delay_many([("yes",), ("no",)])
        assert box.enqueued() == [], "all or none"
        bot.say.delay("yes")
        box.assert_enqueued(bot.say, args=("yes",))


def test_any_other_error_in_enqueue_refuses_the_call_and_names_the_middleware() -> None:
    def broken(_: OutgoingCall) -> OutgoingCall:
        raise KeyError("oops")

    bot = Bot(Send(broken))
    with sandbox(bot.app) as box:
        with pytest.raises(CallRefused, match=r"task _say: Send.enqueue raised KeyError: 'oops'") as caught:
            bot.say.delay("hi")
        assert isinstance(caught.value.__cause__, KeyError)
        assert box.enqueued() == []


@pytest.mark.parametrize("returned", [None, "call"])
def test_enqueue_has_to_return_a_call(returned: object) -> None:
    bot = Bot(Send(lambda _: returned))
    with sandbox(bot.app), pytest.raises(CallRefused, match="must return the call"):
        bot.say.delay("hi")


# --- the app


def test_only_what_is_overridden_is_called() -> None:
    class Dead(Middleware):
        def dead(self, end: End) -> None: ...

    hooks = Hooks("bot", [Dead()])
    assert [hook.owner for hook in hooks.dead] == ["Dead"]
    assert (hooks.enqueue, hooks.claim, hooks.run, hooks.settle, hooks.retry, hooks.lost) == ((), (), (), (), (), ())


def test_added_middleware_is_inside_of_what_was_there() -> None:
    lines: list[str] = []
    bot = Bot(Recorder(lines, "outer"))
    bot.app.add_middleware(Recorder(lines, "inner"))
    other = bot.app.at(namespace="other")
    assert [each.name for each in other.hooks.middleware if isinstance(each, Recorder)] == ["outer", "inner"]
    run(bot, "_say", "hi")
    assert lines[:2] == ["outer enqueue _say", "inner enqueue _say"]


def test_what_is_no_middleware_is_refused() -> None:
    class Plain(Middleware):
        def run(self, context: Context) -> Any:
            return None

    with pytest.raises(ConfigError, match=r"redisq\.Middleware"):
        RedisQ("bot", middleware=[Middleware])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"Plain\.run: want a plain function with one `yield`"):
        RedisQ("bot", middleware=[Plain()])


# --- what is shipped


def test_log_runs_tells_what_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="redisq.runs")
    run(Bot(LogRuns()), "_say", "hi")
    run(Bot(LogRuns(slower_than=60)), "_say", "hi")
    lines = [record.getMessage() for record in caplog.records if record.name == "redisq.runs"]
    assert len(lines) == 1
    assert lines[0].startswith("Task _say[")
    assert " done in 0." in lines[0]


def test_log_job_puts_the_job_into_each_record(kind: str) -> None:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    def steps(_: Context) -> Generator[None, Any, Any]:
        log.warning("inside")
        yield

    log, output = logging.getLogger("test_log_job"), Keep()
    output.addFilter(LogJob())
    log.addHandler(output)
    try:
        log.warning("outside")
        jobs: list[Any] = []
        run(Bot(Wrap(steps)), kind, "hi", then=lambda _, job: jobs.append(job))
    finally:
        log.removeHandler(output)
    told = [(vars(record)["job"], vars(record)["task"], vars(record)["attempt"]) for record in records]
    assert told == [("-", "-", "-"), (jobs[0].id, kind, 1)]
