"""Find the app that a command line names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from redisq.app.app import RedisQ
from redisq.errors import ConfigError

__all__ = ["load_app"]


def load_app(target: str) -> RedisQ:
    """Return the app of `module:attribute`, or the one app in `module`.

    The current folder is looked in first, as `python` itself does.

    Raises:
        ConfigError: There is no such module, or not exactly one app in it.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or module_name.startswith("."):
        raise ConfigError(f"{target!r}: want module:app, e.g. bot:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(f"no module {module_name!r} in {here} or the installed packages") from None
        raise
    if attribute:
        app = module
        for name in attribute.split("."):
            app = getattr(app, name, None)  # type: ignore[assignment]
        if not isinstance(app, RedisQ):
            what = "is not there" if app is None else f"is a {type(app).__name__} and not a RedisQ app"
            raise ConfigError(f"{target}: {attribute!r} {what}; module {module_name} has {_named(_apps_in(module))}")
        return app
    apps = _apps_in(module)
    if not apps:
        raise ConfigError(f"module {module_name} has no app: make one in it, app = RedisQ(...), or name the module that has it")
    if len(apps) > 1:
        raise ConfigError(f"module {module_name} has {_named(apps)}: say which, as in {module_name}:{next(iter(apps))}")
    return next(iter(apps.values()))


def _apps_in(module: ModuleType) -> dict[str, RedisQ]:
    """Return the apps of a module by their first names."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, RedisQ)}
    first = {id(app): name for name, app in reversed(found.items())}
    return {name: app for name, app in found.items() if first[id(app)] == name}


def _named(apps: Collection[str]) -> str:
    return f"the {'app' if len(apps) == 1 else 'apps'} {', '.join(apps)}" if apps else "no app"
