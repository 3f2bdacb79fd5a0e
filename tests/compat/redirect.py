"""A pytest plug-in for kombu's and Celery's suites: `redis://` is our transport, wherever they connect to a broker."""

from __future__ import annotations

import re
from typing import Any

import kombu
import pytest

_connect = kombu.Connection.__init__


def _redirected(self: kombu.Connection, hostname: Any = "localhost", *args: Any, **kwargs: Any) -> None:
    if isinstance(hostname, str):
        hostname = re.sub(r"\bredis(s?)://", r"redisq\1://", hostname)
    _connect(self, hostname, *args, **kwargs)


kombu.Connection.__init__ = _redirected


def pytest_configure(config: pytest.Config) -> None:
    for marker in ("env(name): kombu's", "flaky(reruns, reruns_delay): kombu's; here nothing is run twice"):
        config.addinivalue_line("markers", marker)
