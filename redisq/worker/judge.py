"""How a run ends: the settlement of its message, and the line in the log that says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from redisq.app.app import RedisQ
from redisq.app.task import Task
from redisq.broker.commands import Settlement
from redisq.errors import EncodeError, MessageTooLarge, SoftTimeout, TaskCancelled, TaskTimeout
from redisq.gates.blame import Blame
from redisq.redact import error_text, escape
from redisq.worker.frames import origin, stack
from redisq.worker.held import Held
from redisq.worker.refusals import after_refusal, in_its_place, refusal_of
from redisq.worker.run import Phase, Run
from redisq.worker.verdict import after_failure, after_success, decision_in, done, undecided

__all__ = ["Judge"]


class Judge:
    """Says how runs end.

    Args:
        app: Whose tasks they are.
        random: Returns the share of its jitter that a wait loses.
        log: The worker's logger.
    """

    def __init__(self, app: RedisQ, random: Callable[[], float], log: logging.Logger) -> None:
        self._app = app
        self._max_bytes = app.settings.max_bytes
        self._random = random
        self._log = log
        self._blame = Blame()
        self._told_of: set[str] = set()
        self._hinted: set[str] = set()

    def verdict(self, run: Run, returned: Any, error: BaseException | None) -> Settlement:
        """How its message ends. Whatever code of others is run for that may fail: a run is settled in any case."""
        held, task = run.held, run.task
        try:
            return self._success(held, task, returned) if error is None else self._failure(run, error)
        except Exception as fault:  # noqa: BLE001 - see above
            settlement = done(held.delivery) if error is None else undecided(task.definition, held.delivery, fault)
            then = {"ack": "it counts as done, without a result", "retry": "it is tried again", "dead": "it is a dead letter"}
            self._log.error(
                "Task %s[%s] has ended, but the look at its end failed; %s: %s%s",
                task.name, held.delivery.id, then[settlement.op], error_text(fault), origin(fault),
            )  # fmt: skip
            return settlement

    def _success(self, held: Held, task: Task[..., Any], returned: Any) -> Settlement:
        try:
            return after_success(task, held.delivery, returned, self._max_bytes)
        except (EncodeError, MessageTooLarge) as error:
            # The handler did its work; running it again would not mend this.
            self._log.error("Task %s[%s] is done, its result is not kept: %s", task.name, held.delivery.id, error)
            return done(held.delivery)

    def _failure(self, run: Run, error: BaseException) -> Settlement:
        if run.cancelled and isinstance(error, TaskCancelled):
            self._log.info("Task %s[%s] was cancelled", run.task.name, run.held.delivery.id)
            return Settlement("cancel", run.held.delivery.id, run.held.delivery.fence)
        delivery = run.held.delivery
        self.show_stack(run, stack(error) if self._log.isEnabledFor(logging.DEBUG) else "")
        refused = after_refusal(run.task, delivery, error, self._blame, self._max_bytes, self._random)
        if refused and refused.op == "limited":
            self.report_refusal(run, refused, origin(error))
            return refused
        settlement = refused or after_failure(run.task.definition, delivery, error, self._random)
        self._report(run, settlement, f"{settlement.text!s}{origin(decision_in(error))}")
        return settlement

    def show_stack(self, run: Run, frames: str) -> None:
        """Log at DEBUG where the error of a run was raised."""
        if frames:
            self._log.debug("Task %s[%s] failed in:\n%s", run.task.name, run.held.delivery.id, frames)

    def report_refusal(self, run: Run, settlement: Settlement, where: str) -> None:
        """Tell that a platform refused a run."""
        task, refusal = run.task.name, refusal_of(settlement)
        if refusal.gate and task not in self._hinted:
            self._hint(run, refusal.gate)
        level, what = logging.WARNING, f"{refusal.gate} pauses for {refusal.seconds:.1f} s"
        if not refusal.gate:
            level, what = logging.INFO, f"again in {refusal.delay:.1f} s"
            if task not in self._told_of:
                self._told_of.add(task)
                level, what = (
                    logging.WARNING,
                    f"{what}; the task has no limit for this, so only this call waits: limits= would pause them all",
                )
        self._log.log(
            level, "Task %s[%s] was refused, no attempt is spent, %s: %s%s", task, run.held.delivery.id, what, refusal.text, where
        )

    def _hint(self, run: Run, gate: str) -> None:
        """Warn once a task when a handler names a limit that no call is counted in."""
        queue = run.held.keys.queue
        own = run.task.gating.gates.limits if run.task.gating else ()
        if any(limit.has(gate) for limit in (*own, *self._app.limits_near(queue))):
            return
        self._hinted.add(run.task.name)
        self._log.warning(
            "Task %s[%s] raised RateLimited(key=%r), and no task of queue %s has such a limit: only this message waits. %s",
            run.task.name, run.held.delivery.id, gate, queue, in_its_place(gate, own),
        )  # fmt: skip

    def report_not_begun(self, held: Held, settlement: Settlement, why: str) -> None:
        """Log that no handler could begin a message, which is put aside or becomes a dead letter."""
        ident, queue = escape(held.delivery.id), held.keys.queue
        if settlement.op == "dead":
            self._log.error("Message %s of queue %s cannot be run: %s", ident, queue, why)
        else:
            seconds = _seconds(settlement)
            self._log.warning("Message %s of queue %s is put aside, again in %.1f s: %s", ident, queue, seconds, why)

    def why_stopped(self, run: Run) -> TaskTimeout | TaskCancelled:
        """With which error a run that was told to stop has ended."""
        if run.cancelled:
            return TaskCancelled("cancelled")
        options = run.task.definition
        if run.phase is Phase.WARNED:
            return SoftTimeout(f"soft timeout of {options.soft_timeout:g} s")
        return TaskTimeout(f"timeout of {options.timeout:g} s")

    def report_apart(self, run: Run, settlement: Settlement, line: str) -> None:
        """Log how a run in a process of its own ended, as for a run in the worker.

        Args:
            run: It was running there.
            settlement: How its message ends.
            line: What the process says of it, or how the process ended; empty when the run succeeded.
        """
        name, ident = run.task.name, run.held.delivery.id
        self.show_stack(run, settlement.stack)
        match settlement.op:
            case "limited":
                self.report_refusal(run, settlement, "")
            case "ack" if line:
                self._log.error("Task %s[%s] is %s", name, ident, line)
            case "park":
                self.report_not_begun(run.held, settlement, line)
            case "release":
                self._log.warning("Task %s[%s] is given back, to run in the worker: %s", name, ident, line)
            case "crash":
                self._log.warning("Task %s[%s] ended its process, again in %.1f s: %s", name, ident, _seconds(settlement), line)
            case "dead" if settlement.reason == "crashed":
                self._log.error("Task %s[%s] ended its process, not tried again: %s", name, ident, line)
            case "retry" | "dead":
                self._report(run, settlement, line)

    def _report(self, run: Run, settlement: Settlement, what: str) -> None:
        name, delivery = run.task.name, run.held.delivery
        attempt, attempts = delivery.meta.attempt, run.task.definition.max_retries + 1
        if settlement.op == "retry":
            self._log.warning(
                "Task %s[%s] failed, attempt %d of %d, again in %.1f s: %s",
                name, delivery.id, attempt, attempts, _seconds(settlement), what,
            )  # fmt: skip
        else:
            self._log.error("Task %s[%s] failed, attempt %d of %d, not tried again: %s", name, delivery.id, attempt, attempts, what)


def _seconds(settlement: Settlement) -> float:
    return settlement.delay / 1_000_000
