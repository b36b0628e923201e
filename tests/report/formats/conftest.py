"""Records of all sorts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from aibenchd import model
from aibenchd.report import records


@pytest.fixture
def changed(verdicts: list[model.Record]) -> Callable[..., model.Record]:
    """The first of the verdicts with other fields."""

    def change(**fields: Any) -> model.Record:
        return dataclasses.replace(verdicts[0], text=model.canonical_json({**verdicts[0].payload, **fields}))

    return change


@pytest.fixture
def samples(experiment: records.Experiment, verdicts: list[model.Record]) -> list[model.Record]:
    """Those of one block."""
    started = experiment.treatment.time
    trials = tuple(
        model.Trial(arm, model.Outcome.OK, started, series=(model.Series("NET", "latency", "us", (float(number), number + 2.0)),))
        for number, arm in enumerate(model.ArmName, 10)
    )
    return records.samples_records(experiment, model.Block(3, trials), time=started)
