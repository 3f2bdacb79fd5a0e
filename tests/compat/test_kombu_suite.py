"""kombu's own integration tests of its Redis transport, run against ours. Named below: those that cannot be, and why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.sources import unpacked
from tests.servers import RedisServer

pytestmark = [pytest.mark.compat, pytest.mark.timeout(600)]

#: Test, or class of tests, that looks at what only the stock transport has -> at what.
EXCLUDED = {
    "test_event_loop_consumes_after_connection_reconnect": "drives the stock channel's client and subclient",
    "test_failed_health_check_raises_connection_error": "takes a socket out of the stock channel's connection pool",
    "test_fanout_is_deferred_until_flush": "listens to the stock transport's PUB/SUB channel",
    "test_RedisQueueExpiration": "reads the TTL of the stock transport's lists and binding sets",
    "test_RedisRestoreVisible": "writes into the stock transport's unacked hash, calls its sweep",
    "test_RedisRestoreBindingLookupFailure": "breaks the stock transport's lookup of bindings, reads its unacked hash",
    "test_RedisRestoreAtShutdown": "reads the stock transport's unacked hash and lists",
    "test_RedisSubclientHealthCheck": "breaks the stock transport's PUB/SUB connection",
    "test_RedisBrpopHealthCheck": "breaks the stock transport's BRPOP connection",
    "test_RedisSentinelFanoutCompat": "Sentinel, and PUB/SUB channels of older versions of the stock transport",
    "test_SentinelManagerClose": "Sentinel",
}

#: What is left: as many passed on stock.
FEWEST = 59


def test_kombus_tests_pass(server: RedisServer) -> None:
    source = unpacked("kombu")
    suite = source / "t" / "integration" / "test_redis.py"
    text = suite.read_text()
    names = set(re.findall(r"^(?:class|def) (test_\w+)|^    def (test_\w+)", text, re.M))
    assert set(EXCLUDED) <= {name for pair in names for name in pair}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.compat.redirect", "-p", "no:randomly", "-p", "no:cacheprovider",
            "-p", "no:xdist", "-c", os.devnull, "--rootdir", str(source),
            "-o", "python_classes=test_*", "-q", "--timeout", "60", "--tb=short",
            "-W", "ignore::UserWarning", "-k", " and ".join(f"not {name}" for name in EXCLUDED), str(suite),
        ],
        cwd=source, capture_output=True, text=True, check=False,
        env={**os.environ, "REDIS_6379_TCP": str(server.port), "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= FEWEST
    assert "failed" not in done.stdout
