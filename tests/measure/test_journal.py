"""Blocks on their way into the journal."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import sqlalchemy as sa

from aibenchd import events, model
from aibenchd.measure import conditioning, journal
from aibenchd.store import experiments, schema, store

DEADLINE = 10  # seconds; a test that comes this far has failed
TIME = datetime(2026, 3, 2, tzinfo=UTC)
LOOK = conditioning.Look(1, {}, {})


class Slow:
    """Makes no records, and takes until it is told to go on; then it breaks."""

    def __init__(self, judging: int) -> None:
        self.begun, self.go_on = threading.Barrier(judging + 1), threading.Event()

    def of_block(self, experiment: experiments.Experiment, block: model.Block, fingerprint: Mapping[str, str]) -> None:
        self.begun.wait(DEADLINE)
        self.go_on.wait(DEADLINE)
        raise RuntimeError("broken")

    def of_decision(self, *_: Any) -> None:
        raise NotImplementedError

    def write(self, *_: Any) -> None:
        raise NotImplementedError


def experiment(number: int) -> experiments.Experiment:
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"})
    return experiments.Experiment(
        id=number,
        pair=1,
        run_type="benchmark",
        device=f"device-{number}",
        design=model.Design(benchmark, "generic", model.Rule()),
        treatment=model.Revision("engine", "b" * 40, TIME),
        control=model.Revision("engine", "a" * 40, TIME),
        treatment_build=model.Build("engine", "b" * 40, "generic", "host", "b", "program", "b"),
        control_build=model.Build("engine", "a" * 40, "generic", "host", "a", "program", "a"),
        blocks=0,
        round=0,
        created_at=TIME,
        meta={},
    )


async def test_who_reads_the_journal_waits_for_no_judging(tmp_path: Path) -> None:
    """However many devices judge at once: as many as there are threads that read."""
    series = (model.Series("NET", "latency", "us", (1.0,)),)
    block = model.Block(0, tuple(model.Trial(arm, model.Outcome.OK, TIME, series=series) for arm in model.ArmName))
    recorder, broken = Slow(store.READERS), 0

    async def judged(journalled: store.Store, number: int) -> None:
        nonlocal broken
        try:
            await journal.Journal(journalled, recorder).block(experiment(number), block, {}, LOOK, LOOK)
        except RuntimeError:
            broken += 1

    async with store.opened(tmp_path / "journal.db", events.Events()) as opened, anyio.create_task_group() as tasks:
        for number in range(store.READERS):
            tasks.start_soon(judged, opened, number)
        await anyio.to_thread.run_sync(recorder.begun.wait, DEADLINE)
        with anyio.move_on_after(DEADLINE) as scope:
            await opened.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(schema.experiments)))
        recorder.go_on.set()
    assert not scope.cancelled_caught
    assert broken == store.READERS
