"""Real threads for the lease keeper, in programs with and without greenlets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from redisq.kombu.threads import Postponed, Threads

#: Starts a thread with `Threads`, computes without a pause, and prints what the thread did meanwhile.
_PROGRAM = """
import json, sys, time
if sys.argv[1] == "gevent":
    import gevent.monkey
    gevent.monkey.patch_all()
elif sys.argv[1] == "eventlet":
    import eventlet
    eventlet.monkey_patch()
import socket, threading
from redisq.kombu.threads import Threads

threads = Threads()
lock, long_lock, bell, done = threads.lock(), threads.long_lock(), threads.bell(), []

def run():
    one, other = socket.socketpair()
    bell.wait(30)
    with lock, long_lock:
        one.sendall(b"!")
        done.append(other.recv(1).decode())
    time.sleep(0.01)
    one.close()
    other.close()
    done.append("awake")

long_lock.acquire()
join = threads.start(run, "keeper")
others = []
other = threading.Thread(target=lambda: (long_lock.acquire(), others.append("got it"), long_lock.release()))
other.start()
time.sleep(0.01)
long_lock.release()
bell.ring()
bell.ring()
before = time.monotonic()
while "awake" not in done and time.monotonic() < before + 10:
    pass
while_computing = list(done)
join(10)
other.join(10)
print(json.dumps([threads.are_patched, while_computing, others]))
"""


@pytest.mark.parametrize("library", ["none", "gevent", "eventlet"])
def test_thread_goes_on_while_the_rest_of_the_program_computes(library: str) -> None:
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, library], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(output.stdout) == [library != "none", ["!", "awake"], ["got it"]]


def test_rings_that_nobody_waited_for_count_as_one() -> None:
    bell = Threads().bell()
    bell.ring()
    bell.ring()
    bell.wait(0)
    woken: list[bool] = []
    join = Threads().start(lambda: (bell.wait(30), woken.append(True)), "waits")
    assert not woken
    bell.ring()
    join(30)
    assert woken
    bell.ring()
    bell.clear()
    bell.ring()
    bell.wait(0)


def test_log_records_of_a_real_thread_are_logged_by_the_program(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("redisq.kombu")
    caplog.set_level(logging.WARNING, "redisq.kombu")
    postponed = Postponed(log)
    postponed.warning("Lost the lease of %s", "a message")
    postponed.info("not wanted by the logger")
    assert not caplog.messages
    postponed.deliver()
    postponed.deliver()
    assert caplog.messages == ["Lost the lease of a message"]


def test_traceback_at_the_start_of_celerys_eventlet_pool_is_eventlets_own() -> None:
    """Celery patches the process before redisq is imported: the guide says so."""
    program = (
        "import sys, celery\ncelery.maybe_patch_concurrency(['celery', 'worker', '-P', 'eventlet'])\nprint('redisq' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"
    assert "redisq" not in ran.stderr
