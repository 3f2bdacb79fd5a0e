"""From a URL to clients. The one place that builds them: redis-py's defaults differ between its versions.

Every client speaks protocol 2 (the same replies from every server), never retries by itself (redis-py >= 6 re-runs a
script whose reply was lost), and gives every read a deadline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisq.broker.blocking import BlockingCall
from redisq.broker.connector import AsyncConnector, Connector, Observer, Patience
from redisq.broker.embedded import Embedded, named_folder
from redisq.broker.own_folder import AsyncOwnSocket, OwnSocket
from redisq.broker.pulse import Pulse
from redisq.broker.scripts import Scripts
from redisq.broker.surroundings import Surroundings, deployment
from redisq.errors import ConfigError

__all__ = ["BLOCK_SECONDS", "Server", "masked", "timeout_from_environment", "url_from_environment", "url_problem"]

#: An idle worker blocks this long, in whole seconds (Redis 5 takes no fractions): the cap on every sleep.
BLOCK_SECONDS = 1

# What a URL's query cannot change: replies are read as these make them.
_FIXED = {"protocol": 2, "decode_responses": False}


def url_from_environment(environ: Mapping[str, str] = os.environ, here: Surroundings | None = None) -> str:
    """Return `REDISQ_URL`, or the URL that `REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`, `REDIS_DB` make.

    With neither, on a developer's machine, it is `embedded://`. A deployment that forgot to say where Redis is gets an
    error instead: each of its machines would quietly have a queue of its own.

    Args:
        environ: The variables.
        here: What else tells a deployment; looked up when it is needed.

    Raises:
        ConfigError: Neither `REDISQ_URL` nor `REDIS_HOST` is set in a deployment, or one of the others is not a number.
    """
    if url := environ.get("REDISQ_URL"):
        return url
    host = environ.get("REDIS_HOST")
    if not host:
        deployed = deployment(environ, here or Surroundings.here())
        if not deployed:
            return "embedded://"
        raise ConfigError(
            "no Redis: set REDISQ_URL, e.g. redis://localhost:6379/0, or pass RedisQ(url=...)."
            f" {deployed[0].upper()}{deployed[1:]}, so no server is started unasked; REDISQ_URL=embedded:// asks for one"
        )
    port, database = environ.get("REDIS_PORT") or "6379", environ.get("REDIS_DB") or "0"
    for name, value in (("REDIS_PORT", port), ("REDIS_DB", database)):
        if not value.isdigit():
            raise ConfigError(f"{name}={value!r} is not a number")
    password = environ.get("REDIS_PASSWORD")
    login = f":{quote(password, safe='')}@" if password else ""
    address = f"[{host}]" if ":" in host else host
    return f"redis://{login}{address}:{port}/{database}"


def timeout_from_environment(environ: Mapping[str, str] = os.environ) -> float:
    """Return `REDIS_TIMEOUT`, in seconds, or 5.

    Raises:
        ConfigError: It is not a number.
    """
    value = environ.get("REDIS_TIMEOUT") or "5"
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"REDIS_TIMEOUT={value!r} is not a number of seconds") from None


def masked(url: str) -> str:
    """Return the URL without its password, for logs and errors."""
    # Up to the last @: a password that nobody percent-encoded may have any character.
    hidden = re.sub(r"(?<=://)([^:/?#@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    # Without an @ a password stands where the port should be.
    hidden = re.sub(r"(?<=://)([^:/?#@\[]*):(?!\d{1,5}(?:[/?]|$)|\*\*\*@).*", r"\1:***", hidden, flags=re.DOTALL)
    # What is no known parameter may be a misspelt one, or the rest of a password.
    return re.sub(r"(?<=[?&])([^=&]*)=[^&]*", lambda found: found[0] if found[1] in _HARMLESS else f"{found[1]}=***", hidden)


#: What a URL may say behind its `?`: redis-py's options for connections, and its pool's `max_connections`.
_PARAMETERS = frozenset(
    (
        "client_name", "db", "decode_responses", "encoding", "encoding_errors", "health_check_interval", "lib_name", "lib_version",
        "max_connections", "password", "protocol", "retry_on_error", "retry_on_timeout", "socket_connect_timeout",
        "socket_keepalive", "socket_read_size", "socket_timeout", "username",
    )
)  # fmt: skip
_TLS_PARAMETERS = frozenset(
    (
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_ciphers",
        "ssl_keyfile", "ssl_min_version", "ssl_ocsp_expected_cert", "ssl_password", "ssl_validate_ocsp",
        "ssl_validate_ocsp_stapled",
    )
)  # fmt: skip

#: Parameters whose values may be shown.
_HARMLESS = (_PARAMETERS | _TLS_PARAMETERS) - {"password", "ssl_password"}


def _check_url(url: str) -> None:
    """Accept a URL of a server.

    Raises:
        ConfigError: It cannot be used. The text says why, and shows no password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not separator:
        raise ConfigError(f"URL {masked(url)!r}: want redis://host:port/db, rediss://... (TLS), unix:///path or embedded://")
    problem = url_problem(scheme, rest)
    if problem:
        raise ConfigError(f"URL {masked(url)!r}: {problem}")


def url_problem(scheme: str, rest: str, parameters: frozenset[str] | None = None) -> str:
    """Say what is wrong with what follows `scheme://`; empty: nothing. No value is quoted: it may be part of a password.

    Args:
        scheme: `redis`, `rediss` or `unix`.
        rest: What follows `scheme://`.
        parameters: What may stand behind the `?`, where that is not for redis-py, beside what TLS takes.
    """
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port
    except ValueError:
        return "the port is not a number from 0 to 65535, or brackets do not match" + _ESCAPE
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return "there is an @ behind the address" + _ESCAPE
    if parts.fragment:
        return "a # begins what no server sees" + _ESCAPE
    if scheme != "unix":
        if "," in parts.netloc.rpartition("@")[2]:
            return "it lists several hosts; want one"
        if parts.netloc.endswith(":") and port is None:
            return "the port is missing behind the colon"
        # Two slashes: kombu's virtual hosts may begin with one.
        if not re.fullmatch(r"/?|/[0-9]+" if parameters is None else r"/{0,2}[0-9]*", parts.path):
            return "the path is not the number of a database, as in redis://host:6379/0" + _ESCAPE
    elif not parts.path:
        return "the path of the socket is missing; want unix:///path/to/socket"
    allowed = (_PARAMETERS if parameters is None else parameters) | (_TLS_PARAMETERS if scheme == "rediss" else frozenset())
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            if not re.fullmatch(r"[a-z_]{1,40}", name):
                return "there is an unknown parameter behind the ?" + _ESCAPE
            if parameters is not None and name in _PARAMETERS:
                return f"parameter {name!r} is not read from a broker URL: give it in broker_transport_options, or in the address"
            guess = get_close_matches(name, allowed, 1)
            return f"unknown parameter {name!r}" + (f"; did you mean {guess[0]!r}?" if guess else "") + _ESCAPE
        if name == "db" and not value.isdecimal():
            return "db= is not the number of a database"
    if parameters is not None:
        return ""
    try:
        redis.ConnectionPool.from_url(f"{scheme}://{rest}")  # connects to nothing yet
    except ValueError:
        return "a parameter has a value of the wrong type"
    return ""


_ESCAPE = "; in a password write / as %2F, # as %23, ? as %3F, @ as %40 and : as %3A"


@dataclass(frozen=True, slots=True, repr=False)
class Server:
    """Where Redis is and how to talk to it.

    Attributes:
        url: `redis://`, `rediss://` (TLS, verified) or `unix://`, with redis-py's options in the query. Or `embedded://`,
            a private server for the current folder, or `embedded:///folder`, one for that folder: started, or joined
            when it runs, by each connector that is made.
        timeout: Seconds for one answer.
        max_connections: Of one client; more callers wait for a free one, at most `timeout`.
        scripts: The Lua scripts.
        options: More of redis-py's, for what no URL can say, e.g. a credential provider. `client_name` and
            `socket_connect_timeout` go before what is said here.
    """

    url: str
    timeout: float = 5.0
    max_connections: int = 50
    scripts: Scripts = field(default_factory=Scripts, compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.url.lower().startswith("embedded:"):
            named_folder(self.url)
        else:
            _check_url(self.url)
        if not self.timeout > 0 or self.max_connections < 1:
            raise ConfigError(f"timeout={self.timeout!r}, max_connections={self.max_connections!r}: want more than 0")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {masked(self.url)}>"

    def connector(self, role: str, *, patience: Patience | None = None, observer: Observer | None = None) -> Connector:
        """Return a sync connector; it connects when first used. `role` is for `CLIENT LIST`."""
        pool = self._pool(self._reachable_url(), role, self.timeout)
        return Connector(
            redis.Redis.from_pool(pool),
            self.scripts,
            patience or Patience(self.timeout),
            observer,
            max_connections=self._limit(pool.max_connections),
        )

    def blocking(
        self, role: str, block: float, *, opened: Callable[[int], None], closing: Callable[[int], None]
    ) -> BlockingCall[Any]:
        """Return a connection for calls that block on the server, up to `block` seconds. See `BlockingCall`."""
        pool = self._pool(self._reachable_url(), role, self.timeout + block)
        return BlockingCall(redis.Redis.from_pool(pool), opened, closing)

    def async_connector(
        self, role: str, *, patience: Patience | None = None, observer: Observer | None = None, block: int = 0
    ) -> AsyncConnector:
        """Return an async connector for the running loop. `block`: seconds that its calls may block on the server."""
        pool = self._async_pool(self._reachable_url(), role, self.timeout + block)
        return AsyncConnector(
            redis.asyncio.Redis.from_pool(pool),
            self.scripts,
            patience or Patience(self.timeout),
            observer,
            max_connections=self._limit(pool.max_connections),
        )

    def pulse(self) -> Pulse:
        """Return what asks the server all the time whether it is there."""
        return Pulse(redis.asyncio.Redis.from_pool(self._async_pool(self._reachable_url(), "worker-pulse", self.timeout)))

    def _pool(self, url: str, role: str, read_timeout: float) -> redis.ConnectionPool:
        pool = redis.ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **self._options(url, role, read_timeout))
        pool.connection_kwargs.update(_FIXED)
        if self._is_embedded:
            pool.connection_class = OwnSocket
        return pool

    def _async_pool(self, url: str, role: str, read_timeout: float) -> redis.asyncio.ConnectionPool:
        pool = redis.asyncio.ConnectionPool.from_url(
            url, retry=AsyncRetry(NoBackoff(), 0), **self._options(url, role, read_timeout)
        )
        pool.connection_kwargs.update(_FIXED)
        if self._is_embedded:
            pool.connection_class = AsyncOwnSocket
        return pool

    @property
    def _is_embedded(self) -> bool:
        return self.url.startswith("embedded:")

    def _limit(self, of_pool: int) -> int:
        """The smaller of our own limit and the URL's `max_connections`."""
        return min(self.max_connections, of_pool)

    def _reachable_url(self) -> str:
        url = Embedded.of(self.url).start_or_join() if self._is_embedded else self.url
        # Without what is fixed: a pool makes more of some options than can be taken back afterwards.
        address, _, query = url.partition("?")
        kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in _FIXED]
        return f"{address}?{urlencode(kept)}" if kept else address

    def _options(self, url: str, role: str, read_timeout: float) -> dict[str, Any]:
        # A Unix socket has nothing to keep alive, and redis-py does not take the option for one.
        keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
        return {
            **keepalive,
            **self.options,
            **_FIXED,
            "socket_timeout": read_timeout,
            "socket_connect_timeout": self.options.get("socket_connect_timeout", self.timeout),
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "client_name": self.options.get("client_name", f"redisq:{role}"),
            # The wire counts; subscriptions come on top.
            "max_connections": 2**31,
        }
