"""The lines of the pages that the tests do not run, each with the reason. `...` stands for any text.

One that no page has fails the tests.
"""

from __future__ import annotations

import re

_INDEX = "needs a package index; the wheel is built, installed and used by tests/integration/test_packaging.py"
_DOCKER = "needs Docker; the compose file is parsed, and its command checked, by test_reference.py"
_SYSTEMD = "needs systemd; the unit is parsed, and its command checked, by test_reference.py"

NOT_RUN: dict[str, str] = {
    "pip install ...": _INDEX,
    "docker-compose restart bot-logic": _DOCKER,
    "docker compose up -d --build bot-logic": _DOCKER,
    "docker-compose logs -f bot-logic": _DOCKER,
    "sudo systemctl restart bot-logic": _SYSTEMD,
    "sudo journalctl -u bot-logic -f": _SYSTEMD,
}


def why_not(command: str) -> str | None:
    """The line of `NOT_RUN` that the command is."""
    for line in NOT_RUN:
        if re.fullmatch(re.escape(line).replace(re.escape("..."), ".+"), command):
            return line
    return None
