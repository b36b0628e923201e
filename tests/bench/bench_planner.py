"""What the planner and a search read of a journal with very many experiments and builds, most of which have ended."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
import statusd

from aibenchd import events, settings
from aibenchd.devices import base
from aibenchd.store import builds, schema, searches, store, window
from tests.bench import bench_queue, figures

PAIRS, CELLS, DEVICES = 2_000, 500, 25
STORED = PAIRS * CELLS
OPEN = 20  # newest pairs, which are not decided yet
BUILDS = 50_000
ENGINE = settings.RepositorySettings(name="engine", url="/srv/engine.git", framework="pytorch")
PRESENT = [base.DeviceSettings(name=f"device-{number}", kind="local") for number in range(DEVICES)]
COLUMNS = (
    "pair", "benchmark", "identifier", "model", "device", "backend", "treatment_build", "control_build", "digests", "design",
    "state", "reason", "verdict", "priority", "round", "turn", "blocks", "created_at", "decided_at",
)  # fmt: skip


async def measured(directory: Path) -> list[figures.Figure]:
    rng = random.Random(2)
    async with store.opened(directory / "journal.db", events.Events()) as journal:
        await journal.write(lambda tx: fill(tx, rng))

        async def reading(read: Callable[[sa.Connection], object]) -> float:
            return await journal.read(lambda connection: figures.timed(lambda: read(connection)))

        questions: dict[str, Callable[[sa.Connection], object]] = {
            "the planner's window": lambda c: window.of(c, ENGINE, PRESENT, statusd.NOW),
            "of it, the commits in which all is well": lambda c: window._good(c, "engine"),
            "of it, what lost its control": lambda c: window._orphans(c, "engine"),
            "what a build takes": lambda c: searches._build_seconds(c, builds.Key("engine", "", "pytorch", "host")),
        }
        found = []
        for name, question in questions.items():
            ours, yardstick = await figures.in_turn(
                lambda question=question: reading(question),  # type: ignore[misc]
                lambda: reading(lambda connection: bench_queue.by_key(connection, rng.randrange(STORED) + 1)),
            )
            found.append(figures.Figure(name, ours * 1e3, yardstick * 1e3, "ms", f"a row by its key, of {STORED:,}"))
    return found


def fill(tx: store.Transaction, rng: random.Random) -> None:
    """A line of commits, each compared with the one before in all cells; one of 500 regressed, a few lost their control."""
    commits = [f"{number:040x}" for number in range(PAIRS + 1)]
    for position, commit in enumerate(commits):
        statusd.revision(tx, commit, position)
    made = [
        statusd.build(tx, commit, finished_at=statusd.NOW, started_at=statusd.NOW - timedelta(minutes=5)) for commit in commits
    ]
    row = {"repository": "engine", "framework": "pytorch", "platform": "host", "state": "evicted"}
    times = dict.fromkeys(("queued_at", "started_at", "finished_at"), statusd.NOW)
    tx.connection.execute(schema.builds.insert(), [row | times | {"commit": f"old {number}"} for number in range(BUILDS)])
    pairs = [statusd.pair(tx, treatment, control) for control, treatment in itertools.pairwise(commits)]
    rows = _rows(pairs, made, rng)
    insert = f"INSERT INTO experiments ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    while part := list(itertools.islice(rows, bench_queue.AT_ONCE)):
        tx.connection.exec_driver_sql(insert, part)


def _rows(pairs: list[int], made: list[int], rng: random.Random) -> Iterator[tuple[object, ...]]:
    now = statusd.NOW.timestamp()
    for number, (pair, treatment, control) in enumerate(zip(pairs, made[1:], made[:-1], strict=True)):
        for cell in range(CELLS):
            verdict: str | None = "regressed" if rng.random() < 0.002 else "unchanged"
            state, reason = "decided", ""
            if number >= PAIRS - OPEN:
                state, verdict = "open", None
            elif rng.random() < 0.001:
                state, verdict, reason = "skipped", None, schema.CONTROL_DOES_NOT_BUILD
            yield (
                pair, f"{cell // DEVICES:064}", f"net-{cell // DEVICES}", "net", f"device-{cell % DEVICES}", "",
                treatment, control, "", "{}", state, reason, verdict, 0, 0, rng.random(), 10, now, now if verdict else None,
            )  # fmt: skip
