"""Tell the middleware what becomes of deliveries. Without any that listens, nothing is built and nothing is called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any

from redisq.app.hooks import Hook, Hooks
from redisq.app.middleware import End
from redisq.broker.commands import Settlement
from redisq.broker.keys import QueueKeys
from redisq.codec.summary import task_of
from redisq.message import Delivery
from redisq.worker.held import Held
from redisq.worker.refusals import refusal_of
from redisq.worker.settler import Ended

__all__ = ["Observers", "end_of"]

#: A result is a way to be done.
_DONE = ("ack", "result")
_DELAYED = ("retry", "crash", "park")


def end_of(keys: QueueKeys, delivery: Delivery, task: str | None, settlement: Settlement, run_time: int) -> End:
    """Return what is told of a settlement."""
    done = settlement.op in _DONE
    if settlement.op == "limited":
        refusal = refusal_of(settlement)
        return End(
            delivery.id, keys.queue, task, delivery.meta.attempt, "limited", settlement.reason, refusal.text,
            delay=refusal.delay, run_time=run_time / 1_000_000, gate=refusal.gate,
        )  # fmt: skip
    return End(
        delivery.id,
        keys.queue,
        task,
        delivery.meta.attempt,
        "ack" if done else settlement.op,
        reason="" if done or settlement.reason == "none" else settlement.reason,
        error="" if done else str(settlement.text),
        delay=settlement.delay / 1_000_000 if settlement.op in _DELAYED else 0.0,
        run_time=run_time / 1_000_000,
    )


class Observers:
    """The hooks that only listen: claim, settle, retry, limited, dead, lost.

    Args:
        hooks: Of the app.
        own_signals: Whether a `KeyboardInterrupt` can only be a hook's own.
        context: Returns the context in which a hook is called: a fresh one for each call.

    Attributes:
        watch_claims: Whether anybody listens to claims.
        watch_ends: Whether anybody listens to ends.
    """

    def __init__(self, hooks: Hooks, own_signals: bool = False, context: Callable[[], Context] = copy_context) -> None:
        self._hooks = hooks
        self._context = context
        self._also: tuple[type[BaseException], ...] = (KeyboardInterrupt,) if own_signals else ()
        self.watch_claims = bool(hooks.claim)
        self.watch_ends = bool(hooks.settle or hooks.retry or hooks.limited or hooks.dead or hooks.lost)

    def claimed(self, keys: QueueKeys, deliveries: Sequence[Delivery]) -> None:
        """These came."""
        for delivery in deliveries:
            self._tell("claim", self._hooks.claim, keys.queue, delivery)

    def settled(self, ended: Sequence[Ended], stale: Collection[str]) -> None:
        """Redis took these ends, all but the stale ones."""
        for held, settlement, run_time in ended:
            if held.delivery.id in stale:
                self.lost(held)
            else:
                self.end(end_of(held.keys, held.delivery, held.task, settlement, run_time))

    def end(self, end: End) -> None:
        """Redis took this end."""
        self._tell("settle", self._hooks.settle, end)
        if end.op == "retry":
            self._tell("retry", self._hooks.retry, end)
        elif end.op == "limited":
            self._tell("limited", self._hooks.limited, end)
        elif end.op == "dead":
            self._tell("dead", self._hooks.dead, end)

    def buried(self, keys: QueueKeys, delivery: Delivery) -> None:
        """A claim found this message dead: its worker died too often, or it expired, or its body is gone."""
        task, meta = task_of(delivery), delivery.meta
        self._tell("dead", self._hooks.dead, End(delivery.id, keys.queue, task, meta.attempt, "dead", meta.reason, meta.text))

    def lost(self, held: Held) -> None:
        """Its lease is another's, or nobody's; told once."""
        if self._hooks.lost and not held.told_lost:
            held.told_lost = True
            end = End(held.delivery.id, held.keys.queue, held.task, held.delivery.meta.attempt, "lost", "lease")
            self._tell("lost", self._hooks.lost, end)

    def _tell(self, name: str, hooks: Iterable[Hook], *what: Any) -> None:
        """Call observers apart from everything else: no job, and no other call of a hook, sees their context variables."""
        for hook in hooks:
            self._context().run(self._hooks.tell, name, (hook,), *what, also=self._also)
