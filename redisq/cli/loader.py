"""Find the app that a command line names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

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
            raise ConfigError(f"{target}: {attribute!r} is not a RedisQ app")
        return app
    apps = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, RedisQ)}
    if len(apps) != 1:
        names = ", ".join(name for name, _ in apps.values()) or "none"
        raise ConfigError(f"module {module_name} has {len(apps)} apps ({names}): name one, {module_name}:app")
    return next(iter(apps.values()))[1]
