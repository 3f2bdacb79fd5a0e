"""What the Lua scripts cost Redis: enqueue, claim and settle at several batch sizes, without any worker.

With `--against`, the scripts of another checkout run in turns with those of this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, run
from benchmarks.report import Cell, Figure, Report, Row, parser
from redisq.broker import commands
from redisq.broker.connection import Server
from redisq.broker.connector import Connector
from redisq.broker.keys import QueueKeys
from redisq.broker.scripts import Script, Scripts
from redisq.codec.msgpack import encode
from redisq.message import Delivery, Message, new_ids

STEPS = ("enqueue", "claim", "settle")
BATCHES = (1, 10, 100, 500)
LEASE = 30_000_000


class FolderScripts(Scripts):
    """The scripts of a folder outside the package, in place of the package's own."""

    def __init__(self, folder: Path) -> None:
        self._loaded = {step: self._script(folder, step) for step in STEPS}

    def __getitem__(self, name: str) -> Script:
        return self._loaded[name]

    def _script(self, folder: Path, name: str) -> Script:
        done: set[str] = set()

        def expanded(path: str) -> str:
            done.add(path)
            return re.sub(r"^--- @include (\w+)\n", insert, (folder / f"{path}.lua").read_text(), flags=re.MULTILINE)

        def insert(match: re.Match[str]) -> str:
            path = f"include/{match[1]}"
            return "" if path in done else expanded(path)

        source = expanded(name)
        return Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a task: inside the script, by `INFO commandstats`, and of the whole server, by `INFO cpu`."""

    script: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Side:
    """One set of scripts under measurement."""

    bench: Bench
    connector: Connector
    keys: QueueKeys

    def round(self, batch: int, tasks: int) -> dict[str, Cost]:
        """Take so many tasks through all three steps."""
        body = encode(Message("noop"))
        messages = [commands.Enqueue(new, body) for new in new_ids(tasks)]
        claimed: list[list[Delivery]] = []
        work: dict[str, Callable[[], object]] = {
            "enqueue": lambda: [self._run(commands.enqueue(self.keys, part)) for part in _parts(messages, batch)],
            "claim": lambda: claimed.extend(self._claim(batch).deliveries for _ in range(tasks // batch)),
            "settle": lambda: [self._run(commands.settle(self.keys, _acks(part), 1)) for part in claimed],
        }
        costs = {step: self._cost(work[step], tasks) for step in STEPS}
        if sum(map(len, claimed)) != tasks:
            raise RuntimeError(f"claimed {sum(map(len, claimed))} of {tasks} tasks")
        self.bench.clear((f"{self.keys.prefix}:*",))
        return costs

    def _run(self, command: commands.Command[Any]) -> Any:
        return self.connector.execute(command)

    def _claim(self, batch: int) -> commands.Claimed:
        claimed: commands.Claimed = self._run(commands.claim(self.keys, worker="bench", limit=batch, lease=LEASE, max_crashes=3))
        return claimed

    def _cost(self, work: Callable[[], object], tasks: int) -> Cost:
        redis = self.bench.redis
        redis.config_resetstat()
        cpu = self.bench.redis_cpu()
        work()
        cpu = self.bench.redis_cpu() - cpu
        script = redis.info("commandstats")["cmdstat_evalsha"]["usec"]
        return Cost(script / tasks, cpu / tasks * 1e6)


def _parts(messages: list[commands.Enqueue], size: int) -> Iterator[list[commands.Enqueue]]:
    return (messages[at : at + size] for at in range(0, len(messages), size))


def _acks(deliveries: Sequence[Delivery]) -> list[commands.Settlement]:
    return [commands.Settlement("ack", delivery.id, delivery.fence) for delivery in deliveries]


def tasks_for(batch: int) -> int:
    """Enough for a steady figure, and not more."""
    return min(20_000, 1_000 * batch)


def compare(sides: Sequence[Side], batch: int, rounds: int) -> list[list[dict[str, Cost]]]:
    """Every side once a round, so that noise hits all alike; the first round is a warm-up."""
    table = [[side.round(batch, tasks_for(batch)) for side in sides] for _ in range(rounds + 1)]
    return [list(column) for column in zip(*table[1:], strict=True)]


def row(step: str, batch: int, results: Sequence[Sequence[dict[str, Cost]]]) -> Row:
    """One line of the table: this checkout, and the other one."""
    cells: dict[str, Cell] = {"step": step, "batch": batch}
    for name, side in zip(("", "other "), results, strict=False):
        cells[f"{name}script us/task"] = Figure.of(costs[step].script for costs in side)
        cells[f"{name}redis us/task"] = Figure.of(costs[step].cpu for costs in side)
    if len(results) > 1:
        this, other = ([costs[step] for costs in side] for side in results)
        cells["script ratio"] = Figure.of(cost.script for cost in this).over(Figure.of(cost.script for cost in other))
        cells["redis ratio"] = Figure.of(cost.cpu for cost in this).over(Figure.of(cost.cpu for cost in other))
    return cells


def main() -> None:
    options = parser(__doc__, runs=5)
    options.add_argument("--against", type=Path, metavar="FOLDER", help="the redisq/broker/lua of another checkout")
    options.add_argument("--batch", type=int, nargs="*", default=BATCHES, help="messages a call")
    args = options.parse_args()
    sets = [Scripts(), *([FolderScripts(args.against)] if args.against else [])]
    with ExitStack() as stack:
        bench = stack.enter_context(Bench())
        report = Report(bench.redis, args.json)
        connectors = [stack.enter_context(closing(Server(bench.url, scripts=scripts).connector("bench"))) for scripts in sets]
        sides = [Side(bench, connector, QueueKeys(f"bench{at}")) for at, connector in enumerate(connectors)]
        rows = []
        for batch in args.batch:
            results = compare(sides, batch, args.runs)
            rows += [row(step, batch, results) for step in STEPS]
        report.table("scripts", rows)
        report.finish()


if __name__ == "__main__":
    run(main)
