"""Tell kombu the scheme `redisq://` when it starts, so that no program has to import anything.

kombu has no plug-in group for transports, and loads one for serializers: this module is named there, and its import is
what counts. It stands outside the package, so that a program that only uses kombu does not pay for importing redisq.
"""

from typing import NoReturn

from kombu.transport import TRANSPORT_ALIASES

TRANSPORT_ALIASES.setdefault("redisq", "redisq.kombu.transport:Transport")
TRANSPORT_ALIASES.setdefault("redisqs", "redisq.kombu.transport:SecureTransport")


def _none(*_: object) -> NoReturn:
    raise NotImplementedError("redisq is a transport; it has no serializer")


#: Encoder, decoder, content type: of a serializer that nobody can use.
SERIALIZER = (_none, _none, "application/x-redisq-none")
