"""Where kombu's `Connection` says that Redis is, as redisq's `Server`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from kombu.utils.url import parse_url

from redisq.broker.connection import Server, masked, url_problem
from redisq.errors import ConfigError

__all__ = ["UrlCheck", "check_url", "hide_login", "read_url", "server_of", "tls_options"]

#: Stock options that redis-py takes by the same name.
_PASSED = ("client_name", "credential_provider", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options")
#: Schemes of URLs that a named transport may be given -> whether they mean TLS.
_SCHEMES = {"redis": False, "redisq": False, "rediss": True, "redisqs": True}


#: Scheme of a broker URL -> the scheme whose rules it follows.
_RULES = {**{name: "rediss" if tls else "redis" for name, tls in _SCHEMES.items()}, "redisq+socket": "unix"}
#: What kombu reads from a URL, beside `ssl_*`.
_PARAMETERS = frozenset(("heartbeat", "virtual_host"))


def check_url(url: str) -> None:
    """Accept a broker URL, or one of another transport.

    Raises:
        ConfigError: It cannot be used. The text says why, and shows no password.
    """
    scheme, _, rest = url.partition("://")
    rules = _RULES.get(scheme.lower())
    problem = url_problem(rules, rest, _PARAMETERS) if rules else ""
    if problem:
        raise ConfigError(f"broker URL {masked(url)!r}: {problem}")


class UrlCheck:
    """A transport's `can_parse_url`: no. kombu asks before it parses a URL, which is checked then.

    kombu's own errors for a malformed URL show parts of the password, and no method of a transport is called before. So the
    URLs are looked up where kombu asks; if it asks elsewhere, it gets the answer alone.
    """

    def __bool__(self) -> bool:
        asking = sys._getframe(1).f_locals
        for url in (asking.get("hostname"), *(asking.get("alt") or ())):
            if isinstance(url, str) and "://" in url:
                check_url(url)
        return False


def read_url(client: Any) -> bool:
    """Fill in a `kombu.Connection` whose URL nobody has read yet, as kombu does. Gives whether the scheme means TLS.

    Raises:
        ConfigError: The scheme is another service's; or there are more URLs: kombu would use their own transports.
    """
    url = client.hostname or ""
    if "://" not in url:
        return False
    check_url(url)
    if len(client.alt or ()) > 1:
        raise ConfigError("several broker URLs with a named transport: kombu takes the next one's from its scheme, use redisq://")
    parts = parse_url(url)
    scheme = parts["transport"]
    if scheme not in _SCHEMES:
        raise ConfigError(f"URL scheme {scheme!r} with redisq's transport: want redis, rediss (TLS), redisq or redisqs")
    client.hostname, client.port = parts["hostname"], parts["port"] or client.port
    client.userid, client.password = parts["userid"] or client.userid, parts["password"] or client.password
    client.virtual_host = parts["virtual_host"] or client.virtual_host
    client.ssl = client.ssl or parts.get("ssl") or False
    return _SCHEMES[scheme]


def hide_login(client: Any) -> None:
    """Take the login out of the URL that kombu leaves unread behind `redisq+`: it shows that as the name of the host."""
    if "://" not in (client.hostname or ""):
        return
    # kombu has cut `redisq+` off, and asked nothing.
    if client.hostname.startswith("socket://"):
        check_url(f"redisq+{client.hostname}")
    parts = urlsplit(client.hostname)
    if parts.username or parts.password:
        client.userid = unquote(parts.username or "") or client.userid
        client.password = unquote(parts.password or "") or client.password
        # By hand: `urlunsplit` leaves the slashes of an empty host out.
        client.hostname = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (
            f"?{parts.query}" if parts.query else ""
        )


def server_of(client: Any, options: Mapping[str, Any], *, tls: bool) -> Server:
    """Return the server of a `kombu.Connection`.

    Raises:
        ConfigError: The URL's path is not the number of a database.
    """
    extra = {name: options[name] for name in _PASSED if options.get(name) is not None}
    extra.setdefault("socket_connect_timeout", client.connect_timeout or options.get("socket_timeout") or 5.0)
    extra |= tls_options(client.ssl) if client.ssl else {}
    provider = getattr(client, "credential_provider", None)
    if provider is not None:
        extra["credential_provider"] = provider
    login = _login(client.userid, client.password)
    host = client.hostname or "127.0.0.1"
    if "://" in host:
        # redisq+socket:///path?virtual_host=0, as the stock transport has it: kombu leaves the rest of the URL unread.
        split = urlsplit(host)
        if split.scheme not in ("socket", "unix"):
            raise ConfigError(f"URL scheme {split.scheme!r} behind redisq+: want redisq+socket:///path")
        url = (
            f"unix://{login}{split.path}?db={_database(client.virtual_host if client.virtual_host != '/' else _query(split.query))}"
        )
        extra = {key: value for key, value in extra.items() if not key.startswith(("socket_keepalive", "ssl_"))}
    else:
        scheme = "rediss" if tls or client.ssl else "redis"
        address = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{login}{address}:{client.port or 6379}/{_database(client.virtual_host)}"
    timeout = options.get("socket_timeout") or 5.0
    return Server(url, timeout=float(timeout), max_connections=int(options.get("max_connections") or 10), options=extra)


def _login(user: str | None, password: Any) -> str:
    if callable(password):
        password = password()
    if not user and not password:
        return ""
    return f"{quote(user or '', safe='')}:{quote(str(password or ''), safe='')}@"


def _query(query: str) -> str:
    fields = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
    return fields.get("virtual_host", "0")


def _database(vhost: str | int | None) -> int:
    text = str(vhost or "0").strip("/") or "0"
    if not text.isdecimal():
        # Not quoted: where a password is not escaped, it may be a part of that.
        raise ConfigError("Database is int between 0 and limit - 1, as in redisq://host:6379/0")
    return int(text)


def tls_options(ssl: Any) -> dict[str, Any]:
    """Return redis-py's options for `broker_use_ssl`: True, or its `ssl_*` options, with or without that beginning."""
    if not isinstance(ssl, Mapping):
        return {}
    return {name if name.startswith("ssl_") else f"ssl_{name}": value for name, value in ssl.items()}
