"""Celery's worker on the stock Redis transport and on redisq's: tasks a second that it drains, in turns: medians (least to most).

In turns: medians (least to most).

    python -m benchmarks.compare.celery_drain [--tasks 4000] [--rounds 3] [--pools solo prefork]

Needs celery and a redis-server; starts its own. The tasks do nothing and keep no result.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from celery import Celery

from tests.servers import RedisServer

app = Celery("celery_drain", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)


@app.task(name="noop")
def noop() -> None:
    """Nothing."""


def left(server: RedisServer) -> int:
    """Tasks that are not acknowledged, of either transport."""
    with server.client() as client:
        return int(client.hlen("celery:messages")) + int(client.llen("celery")) + int(client.hlen("unacked"))


def drain(server: RedisServer, scheme: str, pool: str, tasks: int) -> float:
    """Tasks a second, from the tenth part on to the last."""
    with server.client() as client:
        client.flushall()
    broker = server.url().replace("redis://", f"{scheme}://")
    with app.connection(broker) as connection:
        producer = connection.Producer()
        for _ in range(tasks):
            noop.apply_async(producer=producer)
    worker = subprocess.Popen(
        [
            sys.executable, "-W", "ignore", "-m", "celery", "-A", "benchmarks.compare.celery_drain", "worker",
            "--pool", pool, "--concurrency", "2", "--loglevel", "ERROR", "--without-mingle",
        ],
        env={**os.environ, "BENCH_BROKER": broker}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while left(server) > tasks * 0.9:
            time.sleep(0.01)
        started, first = time.perf_counter(), left(server)
        while left(server):
            time.sleep(0.01)
        return first / (time.perf_counter() - started)
    finally:
        worker.terminate()
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:
            worker.kill()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pools", nargs="+", default=["solo", "prefork"])
    options = parser.parse_args()
    print("| pool | stock `redis://` | `redisq://` | ratio |\n|---|---|---|---|")
    with RedisServer() as server:
        for pool in options.pools:
            found: dict[str, list[float]] = {"redis": [], "redisq": []}
            for _ in range(options.rounds):
                for scheme, rates in found.items():
                    rates.append(drain(server, scheme, pool, options.tasks))
            stock, ours = (statistics.median(rates) for rates in found.values())
            cells = " | ".join(f"{statistics.median(some):,.0f} ({min(some):,.0f} to {max(some):,.0f})" for some in found.values())
            print(f"| {pool} | {cells} | {ours / stock:.2f} |", flush=True)


if __name__ == "__main__":
    main()
