"""What stands in for redis-cli where there is none: sends one command, prints the reply as redis-cli does."""

from __future__ import annotations

import sys
from typing import Any

import redis


def shown(reply: Any, indent: str = "") -> str:
    """A reply as redis-cli prints it on a terminal."""
    if isinstance(reply, redis.ResponseError):
        return f"(error) {reply}"
    if reply is None:
        return "(nil)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, list):
        return "\n".join(f"{indent}{at}) {shown(each)}" for at, each in enumerate(reply, 1)) or "(empty array)"
    text = reply.decode()
    return text if "\n" in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main(port: str, *command: str) -> None:
    with redis.Redis(port=int(port), protocol=2) as client:
        client.response_callbacks.clear()
        print(shown(client.execute_command(*command)))


if __name__ == "__main__":
    main(*sys.argv[1:])
