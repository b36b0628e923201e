from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import events, model
from aibenchd.store import housekeeping, planning, schema, store


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def benchmark(name: str) -> model.Benchmark:
    return model.Benchmark({"name": name}, {"identifier": "i", "metric": "delay"}, f"{name}.json")


async def test_what_undecided_experiments_run_is_needed_and_nothing_else(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        build = statusd.build(tx, "a" * 40)

        def add(name: str, state: str, *, other: str = "", run_type: str = "benchmark", device: str = "d") -> None:
            control = model.Variant(benchmark(other), "generic") if other else None
            design = model.Design(benchmark(name), "generic", model.Rule(), control=control)
            pair = statusd.pair(tx, "a" * 40, run_type=run_type)
            row = {"benchmark": benchmark(name).digest, "design": planning.design_json(design), "state": state, "device": device}
            statusd.experiment(tx, pair, build, **row)

        add("waiting", "waiting")
        add("waiting", "waiting", device="another")
        add("open", "open")
        add("ended", "decided")
        add("gone", "skipped")
        add("waiting", "open", other="compared", run_type="compare")
        add("ended", "decided", other="long ago", run_type="compare")

    await journal.write(write)
    needed = await journal.read(housekeeping.needed)
    assert {one.name for one in needed} == {"waiting", "open", "compared"}
    assert {one.source for one in needed} == {"waiting.json", "open.json", "compared.json"}


def sampled(tx: store.Transaction, experiment: int, began: datetime) -> None:
    """A trial of an experiment with a series of samples."""
    trial, trials = statusd.block(tx, experiment, 0), schema.trials
    tx.connection.execute(trials.update().where(trials.c.id == trial).values(started_at=began))
    series = {"trial": trial, "type": "NET", "metric": "latency", "unit": "us", "values": [1.0]}
    tx.connection.execute(schema.samples.insert().values(series))


def excluded(tx: store.Transaction, experiment: int, began: datetime) -> None:
    """A trial of an experiment that does not count."""
    row = {"experiment": experiment, "block": 0, "arm": "treatment", "cause": "device lost", "reason": "its cable"}
    tx.connection.execute(schema.exclusions.insert().values(row | {"excluded_at": began}))


@pytest.mark.parametrize(
    ("add", "forget", "left"),
    [
        (sampled, housekeeping.forget_samples, sa.select(schema.trials.c.experiment).join(schema.samples)),
        (excluded, housekeeping.forget_exclusions, sa.select(schema.exclusions.c.experiment)),
    ],
)
async def test_what_is_old_goes_piece_by_piece_where_its_experiment_has_ended(
    journal: store.Store,
    monkeypatch: pytest.MonkeyPatch,
    add: Callable[[store.Transaction, int, datetime], None],
    forget: Callable[[store.Transaction, datetime], int],
    left: sa.Select[Any],
) -> None:
    monkeypatch.setattr(housekeeping, "TRIALS", 2)
    limit = statusd.NOW

    def write(tx: store.Transaction) -> None:
        build, pair = statusd.build(tx, "a" * 40), statusd.pair(tx, "a" * 40)
        states = {-1: "decided", -2: "skipped", -3: "cancelled", -4: "open", -5: "waiting", 1: "decided"}
        for minutes, state in states.items():
            experiment = statusd.experiment(tx, pair, build, backend=f"{minutes}", state=state)
            add(tx, experiment, limit + timedelta(minutes=minutes))

    await journal.write(write)
    assert [await journal.write(lambda tx: forget(tx, limit)) for _ in range(3)] == [2, 1, 0]
    assert await journal.read(lambda connection: connection.scalars(left).all()) == [4, 5, 6]
