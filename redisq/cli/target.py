"""Which Redis, and which queues, a command works on: the options that say so, and what follows from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from redisq.app.app import RedisQ
from redisq.app.waiting import Step, run
from redisq.broker.commands import inspect
from redisq.broker.keys import QueueKeys
from redisq.broker.queues import known_queues, layouts, lost_queues
from redisq.cli.loader import load_app

__all__ = ["Target", "is_internal", "json_option", "queues_option", "target_options"]

#: Queues that Celery makes for itself: a reply to remote control, a listener to events.
_INTERNAL = re.compile(r".*\.pidbox|celeryev\..*")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: The app of a command line that names none: no tasks, no queues.
NOBODY = "redisq"


@dataclass(frozen=True, slots=True)
class Target:
    """What a command works on.

    Attributes:
        app: The app that was named, or one without tasks.
        named: Whether an app was named.
        chosen: The queues of `-Q`.
    """

    app: RedisQ
    named: bool
    chosen: tuple[str, ...] = ()

    def ask(self, steps: Generator[Step, Any, T]) -> T:
        """Carry out what the generator asks of Redis."""
        return run(steps, self.app.connector)

    def queues(self) -> list[QueueKeys]:
        """The queues of `-Q`, else those of the app, else all.

        Raises:
            click.ClickException: There is no such queue.
            BrokerError: Redis did not say.
        """
        if self.chosen:
            return [self.queue(name) for name in self.chosen]
        if self.named:
            return [self.app.keys(name) for name in self.app.queues]
        return self._all()

    def at_risk(self) -> list[QueueKeys]:
        """The queues to look at for losses: as `queues`, and where all are meant, those too whose `config` was lost."""
        queues = self.queues()
        if self.chosen or self.named:
            return queues
        namespace = self.app.settings.namespace
        return queues + [self.app.keys(keys.queue) for keys in self.ask(lost_queues()) if keys.namespace == namespace]

    def everywhere(self) -> list[QueueKeys]:
        """The queues of `-Q`, else all: those of the app, and those that are in Redis."""
        if self.chosen:
            return self.queues()
        own = self.queues() if self.named else []
        return list(dict.fromkeys((*own, *self._all())))

    def queue(self, name: str) -> QueueKeys:
        """One queue that is there.

        Raises:
            click.ClickException: It is not.
            QueueConflict: Its keys hold something else.
        """
        keys = self.app.keys(name)
        self.app.connector.execute(inspect(keys))
        if self.ask(layouts([keys]))[keys] is None:
            known = ", ".join(each.queue for each in self._all() if not is_internal(each)) or "none"
            raise click.ClickException(f"no queue {name!r} in this Redis{_in(self.app)}; there is: {known}")
        return keys

    def _all(self) -> list[QueueKeys]:
        namespace = self.app.settings.namespace
        found = self.ask(known_queues())
        here = [self.app.keys(keys.queue) for keys in found if keys.namespace == namespace]
        if not here and found:
            elsewhere = ", ".join(sorted({keys.namespace or "''" for keys in found}))
            click.echo(f"There are queues in other namespaces (--namespace): {elsewhere}", err=True)
        return here


def is_internal(keys: QueueKeys) -> bool:
    """Return whether Celery made the queue for itself, for a reply to remote control or for events."""
    return _INTERNAL.fullmatch(keys.queue) is not None


def _in(app: RedisQ) -> str:
    return f", namespace {app.settings.namespace}" if app.settings.namespace else ""


queues_option = click.option(
    "-Q", "--queues", multiple=True, metavar="QUEUE", envvar="REDISQ_QUEUES",
    help="Only these queues; give it several times, or names with commas.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, envvar="REDISQ_JSON", help="Print JSON, for programs.")
_OPTIONS = (
    click.option(
        "-A", "--app", metavar="MODULE:APP", envvar="REDISQ_APP",
        help="The app whose Redis and namespace, and whose queues where all are meant, are used.",
    ),
    click.option(
        "--url", metavar="URL", envvar="REDISQ_URL",
        help="Where Redis is. Default: where the app says, else REDISQ_URL, else REDIS_HOST and its companions.",
    ),
    click.option(
        "--namespace", metavar="NAME", envvar="REDISQ_NAMESPACE", help="What stands before the queues' keys. Default: the app's."
    ),
)  # fmt: skip


def target_options(command: F) -> F:
    """Add `--app`, `--url` and `--namespace` to a command, which gets a `target` in their place.

    Its own parameters `queues` (of `queues_option`) and `app_argument` (a `MODULE:APP` by position) are taken from it.
    """

    @wraps(command)
    def with_target(
        *args: Any,
        app: str | None,
        url: str | None,
        namespace: str | None,
        queues: tuple[str, ...] = (),
        app_argument: str | None = None,
        **kwargs: Any,
    ) -> Any:
        target = _target(app_argument or app, url, namespace, queues)
        try:
            return command(*args, target=target, **kwargs)
        finally:
            target.app.close()

    for option in reversed(_OPTIONS):
        option(with_target)
    return with_target  # type: ignore[return-value]


def _target(app_name: str | None, url: str | None, namespace: str | None, queues: tuple[str, ...]) -> Target:
    chosen = tuple(dict.fromkeys(name for value in queues for name in value.replace(",", " ").split()))
    if not app_name:
        return Target(RedisQ(NOBODY, url=url, namespace=namespace or ""), named=False, chosen=chosen)
    app = load_app(app_name)
    # An app that says where its Redis is means it; only the command line is more explicit than that, no variable is.
    source = click.get_current_context().get_parameter_source("url")
    if source is ParameterSource.ENVIRONMENT:
        url = None
    if url or namespace:
        app = app.at(url=url, namespace=namespace)
    return Target(app, named=True, chosen=chosen)
