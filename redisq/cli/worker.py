"""`redisq worker module:app`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

import click

from redisq.app.app import RedisQ
from redisq.cli.loader import load_app
from redisq.worker.worker import Worker

__all__ = ["worker"]

# "INFO - Started ..." is what operators of the former system look for.
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


@click.command()
@click.argument("target", metavar="MODULE:APP", required=False)
@click.option("-A", "--app", "app_option", metavar="MODULE:APP", envvar="REDISQ_APP", help="The same, as Celery has it.")
@click.option(
    "-Q",
    "--queues",
    multiple=True,
    envvar="REDISQ_QUEUES",
    help="Queues to serve, in this order. Default: those of the app's tasks.",
)
@click.option("-c", "--concurrency", default=100, show_default=True, envvar="REDISQ_CONCURRENCY", help="Messages at a time.")
@click.option("-t", "--threads", default=10, show_default=True, envvar="REDISQ_THREADS", help="Threads for sync handlers.")
@click.option("-b", "--burst", is_flag=True, envvar="REDISQ_BURST", help="Exit when the queues are empty.")
@click.option("-n", "--name", envvar="REDISQ_NAME", help="The worker's name. Default: host, process and a random part.")
@click.option(
    "-l", "--log-level", default="INFO", show_default=True, envvar="REDISQ_LOG_LEVEL",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)  # fmt: skip
@click.option(
    "--shutdown-timeout", default=25.0, show_default=True, envvar="REDISQ_SHUTDOWN_TIMEOUT",
    help="Seconds that running handlers get after SIGTERM; what is not finished then is given back.",
)  # fmt: skip
def worker(
    target: str | None,
    app_option: str | None,
    queues: tuple[str, ...],
    concurrency: int,
    threads: int,
    burst: bool,
    name: str | None,
    log_level: str,
    shutdown_timeout: float,
) -> None:
    """Run the tasks of an app.

    SIGTERM or SIGINT: no more messages, running handlers finish, the rest is given back, exit 0. A second one: now.
    """
    named = target or app_option
    if not named:
        raise click.UsageError("which app? redisq worker module:app")
    logging.basicConfig(format=LOG_FORMAT, level=log_level.upper())
    app = load_app(named)
    chosen = [queue for value in queues for queue in value.replace(",", " ").split()]
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(_run(app, chosen, concurrency, threads, burst, name, shutdown_timeout))
    # Handlers that hang in threads must not keep the process: their messages were given back.
    logging.shutdown()
    sys.stdout.flush()


async def _run(
    app: RedisQ, queues: list[str], concurrency: int, threads: int, burst: bool, name: str | None, shutdown_timeout: float
) -> None:
    running = Worker(
        app, queues=queues, concurrency=concurrency, threads=threads, burst=burst, name=name, shutdown_timeout=shutdown_timeout
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop)
    await running.run()


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, when that is installed (`pip install redisq[speedups]`)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
