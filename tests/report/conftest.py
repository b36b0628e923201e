"""A journal, a board and measurements to report."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import receiver as receivers

from aibenchd import board, events, model
from aibenchd.report import records
from aibenchd.store import outbox, store

INSTALLATION = str(uuid.UUID(int=7))
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


@pytest.fixture
def notices(journal: store.Store) -> board.Board:
    return board.Board(journal.events)


@pytest.fixture
async def receiver() -> AsyncIterator[receivers.Receiver]:
    async with receivers.Receiver().listening() as listening:
        yield listening


@pytest.fixture
def made() -> Callable[..., list[model.Record]]:
    """So many records of one kind, numbered from ``start``."""

    def make(count: int, kind: str = "verdict", start: int = 0, padding: int = 0) -> list[model.Record]:
        numbered = [(f"{kind}-{number}", number) for number in range(start, start + count)]
        return [
            model.Record(id_, kind, model.canonical_json({"id": id_, "number": number, "padding": "x" * padding}))
            for id_, number in numbered
        ]

    return make


@pytest.fixture
def queue(journal: store.Store) -> Callable[..., object]:
    """Queue records for a sink, each call in one transaction."""

    async def put(made: Sequence[model.Record], sink: str = "sink", wants: str = "all") -> None:
        await journal.write(lambda tx: outbox.put(tx, [(sink, wants)], made))

    return put


@pytest.fixture
def experiment() -> records.Experiment:
    benchmark = model.Benchmark(
        {"name": "squeezenet", "group": "vision"},
        {"identifier": "squeeze/1", "metric": "delay", "statistics": ["mean", "p10", "p90"]},
    )
    return records.Experiment(
        installation=INSTALLATION,
        id=12,
        repository="engine",
        run_type=model.RunType.VERIFY,
        treatment=records.Commit("a" * 40, NOW.replace(day=3)),
        control=records.Commit("b" * 40, NOW.replace(day=2)),
        design=model.Design(benchmark, "pytorch", model.Rule(), backend="mkl"),
        decided_on="NET latency",
        platform="host",
        device=records.Device("lab", "serial-1", {"cpu": "two cores"}),
        user_identifier="ci-7",
        user="lab",
        meta={"compiler": "cc"},
    )


@pytest.fixture
def verdicts(experiment: records.Experiment) -> list[model.Record]:
    """What an experiment of two blocks and two metrics comes to: the network and an operator."""
    treatment = [
        model.Series("NET", "latency", "us", (10.0, 20.0, 30.0)),
        model.Series("ID_0_Conv", "latency", "us", (4.0,)),
        model.Series("NET", "latency", "us", (11.0, 21.0, 31.0)),
        model.Series("ID_0_Conv", "latency", "us", (5.0,)),
    ]
    control = [
        model.Series("NET", "latency", "us", (9.0, 19.0, 29.0)),
        model.Series("NET", "latency", "us", (8.0, 18.0, 28.0)),
    ]
    return records.verdict_records(
        experiment,
        model.Decision(model.Verdict.REGRESSED, 2, 0.1, 0.05, 0.15),
        {model.ArmName.TREATMENT: treatment, model.ArmName.CONTROL: control},
        backend="mkl",
        time=NOW,
    )
