"""The next block of a device, chosen out of very many experiments that wait."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import lab
import sqlalchemy as sa
import statusd

from aibenchd import events, model
from aibenchd.store import experiments, schema, store
from tests.bench import figures

PAIRS, BENCHMARKS, DEVICES = 100, 100, 100
QUEUED = PAIRS * BENCHMARKS * DEVICES
CHOSEN = 200  # times
AT_ONCE = 10_000  # rows
DESIGNED = 5.0  # ms
COLUMNS = (
    "pair", "benchmark", "identifier", "model", "device", "backend", "treatment_build", "control_build", "digests", "design",
    "state", "reason", "priority", "round", "turn", "blocks", "created_at",
)  # fmt: skip


async def measured(directory: Path) -> list[figures.Figure]:
    rng = random.Random(1)
    async with store.opened(directory / "journal.db", events.Events()) as journal:
        await journal.write(lambda tx: fill(tx, rng))

        async def reading(read: Callable[[sa.Connection], object]) -> float:
            return await journal.read(lambda connection: figures.timed(lambda: read(connection)))

        ours, yardstick = await figures.in_turn(
            lambda: reading(lambda connection: experiments.next_of(connection, f"device-{rng.randrange(DEVICES)}")),
            lambda: reading(lambda connection: by_key(connection, rng.randrange(QUEUED) + 1)),
            CHOSEN,
        )
    name = f"next block out of {QUEUED:,} queued"
    return [figures.Figure(name, ours * 1e3, yardstick * 1e3, "ms", "a row read by its key", DESIGNED)]


def by_key(connection: sa.Connection, number: int) -> object:
    return connection.execute(sa.select(schema.experiments).where(schema.experiments.c.id == number)).one()


def fill(tx: store.Transaction, rng: random.Random) -> None:
    """Each pair's experiments over all benchmarks and devices, all open, some rounds done."""
    commits = [f"{number:040x}" for number in range(PAIRS + 1)]
    for position, commit in enumerate(commits):
        statusd.revision(tx, commit, position)
    builds = [statusd.build(tx, commit) for commit in commits]
    pairs = [statusd.pair(tx, treatment, control) for control, treatment in itertools.pairwise(commits)]
    rows = _rows(pairs, builds, rng)
    insert = f"INSERT INTO experiments ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    while part := list(itertools.islice(rows, AT_ONCE)):
        tx.connection.exec_driver_sql(insert, part)


def _rows(pairs: list[int], builds: list[int], rng: random.Random) -> Iterator[tuple[object, ...]]:
    now = statusd.NOW.timestamp()
    specification = lab.specification("net")
    benchmark = model.Benchmark(specification["model"], specification["tests"][0], "net.json")
    design = json.dumps(dataclasses.asdict(model.Design(benchmark, "generic", model.Rule())))
    arms = zip(pairs, builds[1:], builds[:-1], strict=True)
    for (pair, treatment, control), net, device in itertools.product(arms, range(BENCHMARKS), range(DEVICES)):
        yield (
            pair, f"{net:064}", f"net-{net}", "net", f"device-{device}", "", treatment, control, "", design,
            "open", "", 0, rng.randrange(7), rng.random(), 0, now,
        )  # fmt: skip
