"""Celery's Redis result backend under the schemes of the transport, so that both may have the same URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.backends.redis import RedisBackend as CeleryBackend

from redisq.errors import ConfigError
from redisq.kombu.address import check_url, tls_options

__all__ = ["RedisBackend"]

#: Scheme of the transport -> that of Celery's backend. `redisq+socket` comes as `socket`, which Celery knows.
_SCHEMES = {"redisq": "redis", "redisqs": "rediss"}


class RedisBackend(CeleryBackend):
    """`result_backend = broker_url`. Results are where Celery's `redis://` puts them, and are read with it."""

    def _params_from_url(self, url: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        if ";" in url:
            raise ConfigError("result_backend: several URLs; results are kept on one server, so give the URL of one")
        check_url(f"redisq+{url}" if url.startswith("socket:") else url)
        scheme, separator, rest = url.partition("://")
        found: dict[str, Any] = super()._params_from_url(f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}", dict(defaults))
        if scheme == "redisq" and not self.app.conf.redis_backend_use_ssl and self.app.conf.broker_use_ssl:
            # The broker's TLS, which the same URL is meant to have.
            found |= {"connection_class": self.connection_class_ssl, **tls_options(self.app.conf.broker_use_ssl)}
            found.setdefault("ssl_cert_reqs", "required")
        if scheme == "redisqs":
            # Verified, unless the URL says otherwise; Celery wants it said.
            found.setdefault("ssl_cert_reqs", "required")
        return found
