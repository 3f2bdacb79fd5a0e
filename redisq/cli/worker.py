"""`redisq worker module:app`."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import click
from click.core import ParameterSource

from redisq.app.app import RedisQ
from redisq.cli.errors import in_words
from redisq.cli.installation import others_warning
from redisq.cli.loader import load_app
from redisq.clocks import steady_loop
from redisq.errors import BrokerFull, BrokerUnavailable, ConfigError, RedisqError
from redisq.logs import LogSetup, get_logger, own_packages, set_up
from redisq.worker.exits import Exit
from redisq.worker.fitness import Limits
from redisq.worker.health import Address, Health
from redisq.worker.line import Voice, Word
from redisq.worker.signals import Signals
from redisq.worker.supervisor import HEALTH, PARENT, SLOT, Supervisor
from redisq.worker.worker import Worker

__all__ = ["command_of", "worker"]

# "INFO - Started ..." is what operators of the former system look for.
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"

#: A process that has lost so many slots to handlers that do not stop ends for another.
MAX_LEAKS = 5


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What the command line says."""

    queues: list[str]
    concurrency: int
    threads: int
    burst: bool
    name: str | None
    shutdown_timeout: float
    max_tasks: int | None
    max_memory: int | None
    health: Address | None


@click.command()
@click.argument("target", metavar="MODULE:APP", required=False)
@click.option("-A", "--app", "app_option", metavar="MODULE:APP", envvar="REDISQ_APP", help="The same, as Celery has it.")
@click.option(
    "-Q", "--queues", multiple=True, envvar="REDISQ_QUEUES",
    help="Queues to serve, in this order; a later one is served too while the first is full, if less. "
    "Default: those of the app's tasks.",
)  # fmt: skip
@click.option(
    "-c", "--concurrency", default=100, show_default=True, envvar="REDISQ_CONCURRENCY",
    help="Messages at a time, in each process.",
)  # fmt: skip
@click.option(
    "-t", "--threads", default=10, show_default=True, envvar="REDISQ_THREADS", help="Threads for sync handlers, in each process."
)
@click.option("-w", "--workers", type=click.IntRange(1), envvar="REDISQ_WORKERS", help="Processes, under a supervisor.")
@click.option("-b", "--burst", is_flag=True, envvar="REDISQ_BURST", help="Exit when the queues are empty.")
@click.option("-r", "--reload", is_flag=True, envvar="REDISQ_RELOAD", help="Start anew when a Python file below here changes.")
@click.option("-n", "--name", envvar="REDISQ_NAME", help="The worker's name. Default: host, process and a random part.")
@click.option(
    "-l", "--log-level", default="INFO", show_default=True, envvar="REDISQ_LOG_LEVEL",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False), help="The least that is logged.",
)  # fmt: skip
@click.option(
    "--no-log-setup", is_flag=True, envvar="REDISQ_NO_LOG_SETUP",
    help="Leave logging to the app. Without it, the app's own root handlers win as well.",
)  # fmt: skip
@click.option(
    "--shutdown-timeout", default=25.0, show_default=True, envvar="REDISQ_SHUTDOWN_TIMEOUT",
    help="Seconds that running handlers get after SIGTERM; what is not finished then is given back.",
)  # fmt: skip
@click.option(
    "--max-tasks-per-child", type=click.IntRange(1), envvar="REDISQ_MAX_TASKS_PER_CHILD",
    help="After so many tasks a process ends for another.",
)  # fmt: skip
@click.option(
    "--max-memory-per-child", type=click.IntRange(1), envvar="REDISQ_MAX_MEMORY_PER_CHILD",
    help="Over so many MiB of memory a process ends for another.",
)  # fmt: skip
@click.option(
    "--health-port", type=click.IntRange(1, 65535), envvar="REDISQ_HEALTH_PORT",
    help="Answer GET /live and GET /ready there: 200, or 503 and why not, in JSON.",
)  # fmt: skip
@click.option(
    "--health-host", default="0.0.0.0", show_default=True, envvar="REDISQ_HEALTH_HOST",  # noqa: S104 - a probe comes from outside
    help="The address for --health-port.",
)  # fmt: skip
def worker(
    target: str | None,
    app_option: str | None,
    queues: tuple[str, ...],
    concurrency: int,
    threads: int,
    workers: int | None,
    burst: bool,
    reload: bool,
    name: str | None,
    log_level: str,
    no_log_setup: bool,
    shutdown_timeout: float,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    health_port: int | None,
    health_host: str,
) -> None:
    """Run the tasks of an app.

    SIGTERM or SIGINT: no more messages, running handlers finish, the rest is given back, exit 0. A second one, more than
    a second later: now.
    """
    named = target or app_option
    if not named:
        raise click.UsageError("which app? redisq worker module:app")
    health = (health_host, health_port) if health_port else None
    supervised = os.environ.get(PARENT) == str(os.getppid())
    voice = Voice(os.environ[SLOT]) if supervised else None
    signals = Signals(supervised, partial(voice.say, Word.ENDS) if voice else None)
    if not supervised and (workers or reload or max_tasks_per_child or max_memory_per_child):
        _set_up_logs(log_level, no_log_setup)
        _warn_of_others()
        with _refusals():
            _end(_supervise(command_of(click.get_current_context()), workers or 1, burst, reload, health))
    options = WorkerOptions(
        [queue for value in queues for queue in value.replace(",", " ").split()],
        concurrency,
        threads,
        burst,
        f"{name}-{os.environ.get(SLOT, '0')}" if name and supervised else name,
        shutdown_timeout,
        max_tasks_per_child if supervised else None,
        max_memory_per_child if supervised else None,
        _in_folder(os.environ.get(HEALTH)) if supervised else health,
    )
    with _refusals():
        app = load_app(named)
        _set_up_logs(log_level, no_log_setup, _own_loggers(app, named))
        if not supervised:
            _warn_of_others()
        runner = asyncio.Runner(loop_factory=_fast_loop())
        try:
            code = runner.run(_work(app, options, signals, voice))
        except BaseException:
            runner.close()
            raise
    # Not closed: closing waits for threads of the loop, which a handler may hold.
    _end(code)


def _set_up_logs(level: str, leave: bool, own: Iterable[str] = ()) -> None:
    """Show logs on stderr, unless the app has set up its own: its module is imported before."""
    if not leave and not logging.getLogger().handlers:
        set_up(LogSetup(LOG_FORMAT, level, frozenset(own)))


def _warn_of_others() -> None:
    if warning := others_warning():
        get_logger("redisq.worker").warning("%s", warning)


def _own_loggers(app: RedisQ, target: str) -> set[str]:
    modules = (task.__module__ for task in app.tasks.values())
    return {app.name, *own_packages((target.partition(":")[0], *modules))}


class Refused(click.ClickException):
    """It cannot work like this, and another start will not help."""

    exit_code = Exit.REFUSED


@contextmanager
def _refusals() -> Iterator[None]:
    """Give an error that is shown in words its exit code."""
    try:
        yield
    except (BrokerUnavailable, BrokerFull):
        raise  # another start may meet Redis in a better state
    except RedisqError as error:
        raise Refused(in_words(error)) from None


async def _work(app: RedisQ, options: WorkerOptions, signals: Signals, voice: Voice | None) -> int:
    running = Worker(
        app,
        queues=options.queues,
        concurrency=options.concurrency,
        threads=options.threads,
        burst=options.burst,
        name=options.name,
        shutdown_timeout=options.shutdown_timeout,
        limits=Limits(
            max_tasks=options.max_tasks,
            max_memory=options.max_memory and options.max_memory * 2**20,
            max_leaks=MAX_LEAKS,
            parent=os.getppid() if voice else None,
        ),
        health=options.health,
        own_signals=True,
    )
    signals.attach(asyncio.get_running_loop(), running.stop)
    telling = asyncio.create_task(_tell_ready(running, voice)) if voice else None
    await running.run()
    if telling:
        telling.cancel()
    if voice and running.exit is Exit.ASKED:
        voice.say(Word.ENDS)
    return running.exit


async def _tell_ready(running: Worker, voice: Voice) -> None:
    await running.ready.wait()
    voice.say(Word.READY)


def _in_folder(folder: str | None) -> str | None:
    """Where a supervised process answers health checks: its supervisor asks it, and answers at the port."""
    return f"{folder}/{os.environ[SLOT]}" if folder else None


def command_of(context: click.Context) -> list[str]:
    """Return the command line that starts a worker process with the options of this one.

    `sys.argv` is another program's when that calls the command by itself. Variables of the environment are inherited.
    """
    arguments: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        inherited = context.get_parameter_source(parameter.name or "") in (ParameterSource.DEFAULT, ParameterSource.ENVIRONMENT)
        if inherited or value is None or value is False:
            continue
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
            continue
        longest = max(parameter.opts, key=len)
        if value is True:
            options.append(longest)
        else:
            options += [f"{longest}={each}" for each in (value if isinstance(value, tuple) else (value,))]
    return [sys.executable, "-m", "redisq", "worker", *options, "--", *arguments]


def _supervise(command: Sequence[str], workers: int, burst: bool, reload: bool, health: Address | None) -> int:
    """Run the same command in processes of their own; they find in the environment whose children they are."""
    log = get_logger("redisq.supervisor")
    with TemporaryDirectory(prefix="redisq-health-") if health else nullcontext() as folder:
        supervisor = Supervisor(command, workers, log, once=burst, changes=_changes() if reload else None, health=folder)
        if health:
            Health(health, {"live": supervisor.live, "ready": supervisor.ready}, log)
        return asyncio.run(supervisor.run())


def _changes() -> AsyncIterator[Any]:
    try:
        import watchfiles
    except ImportError:
        raise ConfigError("--reload needs watchfiles: pip install 'redisq-tasks[reload]'") from None
    return watchfiles.awatch(".", watch_filter=watchfiles.PythonFilter())


def _end(code: int) -> None:
    """End the process: without waiting for threads that hang, whose messages were given back."""
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop of uvloop, when that is installed (`pip install redisq-tasks[speedups]`)."""
    try:
        import uvloop
    except ImportError:
        return steady_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
