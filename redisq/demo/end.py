"""What is told at the end, whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redisq.demo.result import Result
from redisq.demo.traffic import TALKERS
from redisq.words import counted

__all__ = ["further", "rows"]

_COMMANDS = (
    ("redisq status", "each queue, its states and counters"),
    ("redisq dead list", "the dead letters, with reason and error"),
    ("redisq limits list", "the limits, and what they hold back"),
    ("redisq inspect JOB", "one message, wherever it is"),
    ("redisq dead replay JOB", "try a dead letter again"),
    ("redisq doctor", "check Redis and this installation"),
)


def rows(result: Result) -> Iterator[tuple[str, str, str]]:
    """Give the rows of the table: name, number, words."""
    yield "messages", str(result.messages), f"in {result.seconds:g} s, all processes started and ended"
    again = f"{result.answered_again} of them twice: delivery is at least once" if result.answered_again else ""
    yield "answered", str(result.answered), again
    yield "retried", str(result.retries), "after a 500, a 503 or no answer in time"
    yield "taken back", str(result.taken_back), f"from {counted(result.workers_killed, 'killed worker')}"
    yield "dead letters", str(len(result.dead)), ""
    for letter in result.dead:
        yield f"  {letter.reason}", f"chat {letter.chat_id}", letter.error
    wrong = f"; out of order: {result.out_of_order}" if result.out_of_order else ""
    yield "in order", str(result.in_order), f"messages of {TALKERS} chats, over both workers{wrong}"
    early = f", {result.too_early} came too early" if result.too_early else ""
    yield "refused (429)", str(result.limited), f"its chat paused for both, no attempt spent{early}"
    yield "busiest second", str(result.busiest_second), "requests from both workers; their limit is 30/s, burst 2"
    latency, urgent = result.latency, result.priority_latency
    yield "latency p50, p99", f"{latency.p50:.1f}, {latency.p99:.1f}", "seconds from due to answered"
    yield "  with priority", f"{urgent.p50:.1f}, {urgent.p99:.1f}", "sent last, answered first"


def further(kept_url: str | None) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
    """Return the lines before the commands, and the commands with what they do."""
    if kept_url is None:
        return (
            "Nothing is left behind. The bot's code, to copy: examples/chat_bot.py",
            "To look further, `redisq demo --keep` leaves the server for these commands:",
        ), _COMMANDS
    return (
        "The server stays, in a folder of its own. To look further:",
        f"  export REDISQ_URL={kept_url}",
    ), (*_COMMANDS, ("redisq embedded stop", "end the server; its folder can be deleted then"))
