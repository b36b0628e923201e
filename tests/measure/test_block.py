"""What a block adds to its trials."""

import dataclasses
from datetime import UTC, datetime

import pytest

from aibenchd import model
from aibenchd.measure import block

NETWORK = model.Series("NET", "latency", "us", (9.0, 5.0, 5.0))
TRIAL = model.Trial(model.ArmName.TREATMENT, model.Outcome.OK, datetime(2026, 3, 2, tzinfo=UTC), series=(NETWORK,))


def test_the_first_iteration_is_a_metric_of_its_own_where_leading_ones_are_left_out() -> None:
    *rest, first = block.with_first(TRIAL, model.Summary(skip=1)).series
    assert rest == [NETWORK]
    assert (first.key, first.unit, first.values) == ("NET first_iteration", "us", (9.0,))
    assert model.decisive((NETWORK, first)) is NETWORK  # it alarms nobody


@pytest.mark.parametrize(
    ("skip", "series"),
    [
        (0, (NETWORK,)),
        (1, ()),
        (1, (dataclasses.replace(NETWORK, values=()),)),
        (1, (NETWORK, model.Series("NET", "cold_start", "us", (20.0,)))),
    ],
)
def test_else_a_trial_stays_as_it_was(skip: int, series: tuple[model.Series, ...]) -> None:
    trial = dataclasses.replace(TRIAL, series=series)
    assert block.with_first(trial, model.Summary(skip=skip)) == trial
