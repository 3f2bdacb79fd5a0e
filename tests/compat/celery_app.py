"""A Celery app that says nothing of redisq but its URL."""

from __future__ import annotations

import os
import signal
import time

from celery import Celery

app = Celery("compat", broker=os.environ.get("COMPAT_BROKER"), backend=os.environ.get("COMPAT_BACKEND"))
app.conf.broker_transport_options = {"lease": 3, "delivery_limit": 3}
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {"each second": {"task": "write", "schedule": 1.0, "args": ("beat",)}}


def note(line: str) -> None:
    """Write a line to the test's ledger."""
    with open(os.environ["COMPAT_LEDGER"], "a") as ledger:
        ledger.write(f"{line}\n")


@app.task(name="add")
def add(one: int, two: int) -> int:
    """Add."""
    return one + two


@app.task(name="total")
def total(numbers: list[int]) -> int:
    """Add many."""
    return sum(numbers)


@app.task(name="write", acks_late=True, ignore_result=True)
def write(line: str) -> None:
    """Write a line."""
    note(line)


@app.task(name="lateness", ignore_result=True)
def lateness(due: float) -> None:
    """Write how late it runs."""
    note(str(time.time() - due))


@app.task(name="hold", acks_late=True, ignore_result=True)
def hold(seconds: float) -> None:
    """Take its time."""
    note("begin")
    time.sleep(seconds)
    note("end")


@app.task(name="hold_early", ignore_result=True)
def hold_early(seconds: float) -> None:
    """Take its time, acknowledged before."""
    note("begin")
    time.sleep(seconds)
    note("end")


@app.task(name="burn", acks_late=True, ignore_result=True)
def burn(seconds: float) -> None:
    """Compute, and let no greenlet of the worker run meanwhile."""
    note("burn")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    note("burned")


@app.task(name="wait_for", acks_late=True, ignore_result=True)
def wait_for(path: str) -> None:
    """Run until a file is there."""
    note("begin")
    while not os.path.exists(path):
        time.sleep(0.05)
    note("end")


@app.task(name="pill", acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def pill() -> None:
    """Kill the process that runs it."""
    note("taken")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="again", bind=True, max_retries=2)
def again(self: object) -> int:
    """Succeed at the third try."""
    if self.request.retries < 2:  # type: ignore[attr-defined]
        raise self.retry(countdown=0.2)  # type: ignore[attr-defined]
    return int(self.request.retries)  # type: ignore[attr-defined]
