"""kombu's names of queues and exchanges, as redisq's keys have them."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import quote

from redisq.broker.keys import ExchangeKeys, QueueKeys

__all__ = ["Names"]

#: Characters of a name that are kept when it is too long; a digest of the whole follows.
_KEPT = 60


class Names:
    """From kombu's names to keys, remembered.

    Args:
        prefix: The option `global_keyprefix`, e.g. `myapp:`.
    """

    def __init__(self, prefix: str = "") -> None:
        #: What is put before every name; empty for none.
        self.namespace = _encoded(prefix.rstrip(":")) if prefix.rstrip(":") else ""
        self._queues: dict[str, QueueKeys] = {}
        self._exchanges: dict[str, ExchangeKeys] = {}

    def queue(self, name: str) -> QueueKeys:
        """The keys of a queue."""
        keys = self._queues.get(name)
        if keys is None:
            keys = self._queues[name] = QueueKeys(_encoded(name), self.namespace)
        return keys

    def exchange(self, name: str) -> ExchangeKeys:
        """The keys of an exchange."""
        keys = self._exchanges.get(name)
        if keys is None:
            keys = self._exchanges[name] = ExchangeKeys(_encoded(name), self.namespace)
        return keys

    def forget(self, name: str) -> None:
        """A queue was deleted: names of reply queues come and go."""
        self._queues.pop(name, None)


def _encoded(name: str) -> str:
    # ~ is the one character that quote leaves alone and redisq does not allow.
    text = quote(name, safe="@").replace("~", "%7E")
    if len(text) <= _KEPT + 64 and text:
        return text
    # Cut before a %, not behind one.
    start = text[:_KEPT].rsplit("%", 1)[0] if "%" in text[_KEPT - 2 : _KEPT] else text[:_KEPT]
    # No name is encoded with a %2E in it: none can be taken for a long one that was cut.
    return f"{start}%2E{sha256(name.encode()).hexdigest()[:40]}"
