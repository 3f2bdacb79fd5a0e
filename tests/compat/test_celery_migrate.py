"""`celery migrate`, as the docs write it, moves what waits on a stock Redis broker, and ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from celery import Celery

from tests.integration.processes import ROOT
from tests.servers import RedisServer

pytestmark = [pytest.mark.compat, pytest.mark.timeout(120)]


def test_the_command_of_the_docs_moves_all_waiting_tasks_and_ends() -> None:
    page = (ROOT / "docs" / "how-to" / "celery.md").read_text()
    command = re.search(r"`celery -A bot (migrate [^`]*)`", page)
    assert command, "the page has no command"
    with RedisServer() as server, server.client(2) as old, server.client(3) as new:
        source, target = server.url(2), server.url(3).replace("redis://", "redisq://")
        arguments = command[1].replace("redis://host/0", source).replace("redisq://host/1", target).split()
        with Celery("old", broker=source) as app:
            for number in range(25):
                app.send_task("add", (number, 1))
                app.send_task("add", (number, 1), queue="mail")
        assert (old.llen("celery"), old.llen("mail")) == (25, 25)
        for queues in ([], ["-Q", "mail,other"]):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.compat.celery_app", *arguments, *queues],
                cwd=ROOT, env={**os.environ, "COMPAT_BROKER": source}, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            # Without -Q, what is in other queues stays where it is.
            assert old.llen("mail") == (0 if queues else 25)
        assert (old.llen("celery"), old.hlen("unacked")) == (0, 0)
        assert (new.zcard("celery:queue:main"), new.zcard("mail:queue:main")) == (25, 25)
