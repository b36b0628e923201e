"""One number of a process."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import choosing, summary

RULES = [model.Summary(skip, low, high) for skip in (0, 3) for low, high in choosing.PARTS]
TIMES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60)


def test_it_is_the_fastest_eighth_by_default() -> None:
    assert summary.of_process([float(time) for time in range(16, 0, -1)]) == pytest.approx(1.5)
    assert summary.of_process([float(time) for time in range(1, 18)]) == pytest.approx(2.0)  # three of 17
    assert summary.of_process([5.0]) == 5.0


@pytest.mark.parametrize(
    ("low", "high", "number"), [(0, 1 / 2, 4.5), (7 / 16, 9 / 16, 8.5), (1 / 4, 3 / 4, 8.5), (0, 1, 8.5), (3 / 4, 1, 14.5)]
)
def test_other_parts_are_means_of_ranks(low: float, high: float, number: float) -> None:
    assert summary.of_process([float(time) for time in range(1, 17)], model.Summary(0, low, high)) == pytest.approx(number)


def test_leading_iterations_are_left_out_before_the_rest_is_ranked() -> None:
    times = [1.0, 1.0, *[10.0] * 14]
    assert summary.of_process(times, model.Summary(skip=2)) == 10.0
    assert summary.of_process(times, model.Summary(skip=1)) == pytest.approx((1 + 10) / 2)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_half_of_the_iterations_and_a_tail_of_them_always_stay(iterations: int, skip: int) -> None:
    left = iterations - summary.dropped(iterations, skip)
    assert left >= min(iterations, max(iterations / 2, model.TAILED))


@given(TIMES, st.floats(1e-3, 1e3), st.sampled_from(RULES))
def test_it_scales_with_its_times_and_lies_among_them(times: list[float], factor: float, rule: model.Summary) -> None:
    found = summary.of_process(times, rule)
    assert min(times) * (1 - 1e-9) <= found <= max(times) * (1 + 1e-9)
    assert summary.of_process([factor * time for time in times], rule) == pytest.approx(factor * found)


@given(st.integers(1, 30), st.integers(1, 6), st.sampled_from(RULES), st.integers(0, 1000))
def test_many_at_once_are_as_each_by_itself(iterations: int, processes: int, rule: model.Summary, seed: int) -> None:
    times = np.exp(np.random.default_rng(seed).standard_normal((processes, iterations)))
    assert summary.of_each(times, rule).tolist() == [summary.of_process(row, rule) for row in times.tolist()]


def test_the_tail_is_the_slowest_quarter_where_there_is_one_and_it_is_asked_for() -> None:
    times = [float(time) for time in range(1, 17)]
    assert summary.of_tail(times) == pytest.approx(14.5)
    assert summary.of_tail(times[:8]) == pytest.approx(7.5)
    assert summary.of_tail(times[:7]) is None
    assert summary.of_tail(times, model.Summary(low=0.0, high=1.0)) is None  # the number has the tail in it
    assert summary.of_tail(times, model.Summary(guard=False)) is None
    assert summary.of_tail(times[:9], model.Summary(skip=4)) == pytest.approx(8.5)  # one of them is left out, so that 8 stay


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [0.0], [math.inf, 1.0]])
def test_what_is_no_time_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"iteration|process"):
        summary.of_process(bad)


def test_no_sum_overflows() -> None:
    assert summary.of_process([1.7e308] * 16, model.Summary(high=1.0)) == pytest.approx(1.7e308)


@pytest.mark.parametrize(
    ("rule", "name"), [(model.Summary(), "mean of the fastest eighth"), (model.Summary().tail, "mean of the slowest quarter")]
)
def test_it_has_a_name(rule: model.Summary, name: str) -> None:
    assert rule.name == name
    assert len({other.name for other in RULES}) == len(choosing.PARTS)
