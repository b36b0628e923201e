from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import statusd

from aibenchd import events, model
from aibenchd.store import housekeeping, planning, store


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
