"""The memory of Celery's worker on redisq's transport while far ETA tasks come in, and how late near ones start.

    python -m benchmarks.compare.celery_eta_memory [--tasks 100000] [--near 500]

Needs celery, psutil and a redis-server; starts its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from celery import Celery

import redisq.kombu  # noqa: F401 - its import makes the scheme known
from tests.servers import RedisServer

app = Celery("celery_eta_memory", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(task_ignore_result=True)


@app.task(name="late")
def late(due: float) -> None:
    """Write how late it starts."""
    with open(os.environ["BENCH_LEDGER"], "a") as ledger:
        ledger.write(f"{time.time() - due}\n")


def memory(process: psutil.Process) -> float:
    """Megabytes of the worker's first process, which holds what was prefetched."""
    return float(process.memory_info().rss) / 2**20


def send(broker: str, count: int, countdown: float) -> None:
    """Send tasks with an eta, in batches."""
    with app.connection(broker) as connection:
        producer = connection.Producer()
        with producer.batch():
            for _ in range(count):
                late.apply_async((0.0,), countdown=countdown, producer=producer)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--near", type=int, default=500)
    options = parser.parse_args()
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        broker, ledger = server.url().replace("redis://", "redisq://"), Path(folder, "ledger")
        ledger.touch()
        worker = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-m", "celery", "-A", "benchmarks.compare.celery_eta_memory", "worker",
                "--concurrency", "2", "--loglevel", "ERROR", "--without-mingle",
            ],
            env={**os.environ, "BENCH_BROKER": broker, "BENCH_LEDGER": str(ledger)},
        )  # fmt: skip
        try:
            with app.connection(broker) as connection:
                producer = connection.Producer()
                for number in range(options.near):
                    due = time.time() + 5 + number * 0.01
                    late.apply_async((due,), countdown=due - time.time(), producer=producer)
            lines: list[str] = []
            while len(lines) < options.near:
                time.sleep(0.2)
                lines = ledger.read_text().splitlines()
            took = sorted(float(line) * 1000 for line in lines)
            print(f"late, ms: p50 {took[len(took) // 2]:.1f}, p99 {took[len(took) * 99 // 100]:.1f}, most {took[-1]:.1f}")
            process = psutil.Process(worker.pid)
            before = memory(process)
            send(broker, options.tasks, 86_400)
            time.sleep(5)
            with server.client() as client:
                print(f"{client.zcard('celery:queue:delayed')} tasks wait in Redis")
            print(f"worker, MB: {before:.1f} before, {memory(process):.1f} after")
        finally:
            worker.terminate()
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()


if __name__ == "__main__":
    main()
