"""The ratio of two programs that were measured each by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.decide import apart

TIMES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12)


def test_of_known_figures() -> None:
    """Means 0 and log 2, variances 1/50 and 2/50 of logarithms, five of each: 7.2 degrees of freedom, t(7) at 95 % is 2.365."""
    around = np.array([-2, -1, 0, 1, 2]) / math.sqrt(2.5)
    fast, slow = np.exp(around * math.sqrt(0.02)), 2 * np.exp(around * math.sqrt(0.04))
    found = apart.ratio(slow, fast, 0.05)
    assert found is not None
    reach = 2.3646 * math.sqrt((0.02 + 0.04) / 5)
    assert found.estimate == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((2 * math.exp(-reach) - 1, 2 * math.exp(reach) - 1), rel=1e-4)


def test_one_process_of_an_arm_tells_no_interval() -> None:
    assert apart.ratio([1.0], [1.0, 2.0], 0.05) is None


def test_it_holds_the_ratio_as_often_as_it_says() -> None:
    """Arms of unequal noise and number: 4,000 intervals of 90 %; the rate's own error is 0.5 points."""
    draw, error, runs = np.random.default_rng(7), 0.1, 4_000
    held = 0
    for _ in range(runs):
        found = apart.ratio(1.25 * np.exp(draw.normal(0, 0.05, 10)), np.exp(draw.normal(0, 0.01, 6)), error)
        assert found is not None
        held += found.low < 0.25 < found.high
    assert abs(held / runs - (1 - error)) < 4 * math.sqrt(error * (1 - error) / runs)


@given(TIMES, TIMES, st.floats(1e-6, 1e6))
def test_no_unit_matters_and_swapped_arms_mirror_it(treatment: list[float], control: list[float], unit: float) -> None:
    one = apart.ratio(treatment, control, 0.01)
    scaled = apart.ratio([unit * value for value in treatment], [unit * value for value in control], 0.01)
    mirrored = apart.ratio(control, treatment, 0.01)
    assert one is not None
    assert scaled is not None
    assert mirrored is not None
    assert math.log1p(scaled.estimate) == pytest.approx(math.log1p(one.estimate), abs=1e-9)
    assert math.log1p(mirrored.estimate) == pytest.approx(-math.log1p(one.estimate), abs=1e-9)
    assert one.low <= one.estimate <= one.high
