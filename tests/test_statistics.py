from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import statistics

SAMPLES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)


def test_all_that_faipep_reports() -> None:
    found = statistics.summary([4.0, 1.0, 3.0, 2.0])
    assert list(found) == list(statistics.DEFAULT)
    assert found == pytest.approx(
        {
            "mean": 2.5,
            "p0": 1.0,
            "p10": 1.3,
            "p50": 2.5,
            "p90": 3.7,
            "p100": 4.0,
            "stdev": 1.25**0.5,
            "MAD": 1.0,
            "cv": 1.25**0.5 / 2.5,
        }
    )


def test_the_median_is_always_there() -> None:
    assert statistics.summary([1.0, 2.0, 9.0], ["p99.5"]) == {"p99.5": pytest.approx(8.93), "p50": 2.0}


def test_no_samples_no_statistics() -> None:
    assert statistics.summary([]) == {}


def test_cv_of_a_zero_mean_is_left_out() -> None:
    assert statistics.summary([-1.0, 1.0], ["cv", "stdev"]) == {"stdev": 1.0, "p50": 0.0}


@pytest.mark.parametrize("name", ["median", "p101", "p", "P50", "p-1", ""])
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    assert not statistics.known(name)
    with pytest.raises(ValueError, match="p0 to p100"):
        statistics.summary([1.0], [name])


@given(SAMPLES)
def test_percentiles_rise_within_the_samples(values: list[float]) -> None:
    found = statistics.summary(values, [f"p{percent}" for percent in range(0, 101, 5)])
    rising = [found[f"p{percent}"] for percent in range(0, 101, 5)]
    assert all(low <= high + 1e-6 for low, high in itertools.pairwise(rising))
    assert (found["p0"], found["p100"]) == (min(values), max(values))


@given(SAMPLES, st.integers(-1000, 1000))
def test_a_shift_moves_the_mean_and_not_the_spread(values: list[float], shift: int) -> None:
    before, after = statistics.summary(values), statistics.summary([value + shift for value in values])
    assert after["mean"] == pytest.approx(before["mean"] + shift, abs=1e-3)
    assert after["stdev"] == pytest.approx(before["stdev"], abs=1e-3)
    assert after["MAD"] == pytest.approx(before["MAD"], abs=1e-3)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.30850), (1, 10, 0.002529, 0.44502), (10, 10, 0.69150, 1), (3, 400, 0.0015485, 0.021762)],
)
def test_an_exact_interval_is_that_of_clopper_and_pearson(successes: int, trials: int, low: float, high: float) -> None:
    found = statistics.exact_interval(successes, trials)
    assert found == pytest.approx((low, high), rel=1e-3, abs=1e-9)
