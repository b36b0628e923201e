"""How far the y axis of a chart reaches."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.web import ranges

ZONE = (-2.0, 2.0)
SMALL = [random.Random(one).gauss(0, 0.3) for one in range(40)]


def edge(values: list[float | None], half: float = 0.5) -> dict[str, object] | None:
    low = [None if one is None else one - half for one in values]
    high = [None if one is None else one + half for one in values]
    return ranges.edge(values, low, high, least=2.0, always=ZONE)


def test_one_huge_change_is_beyond_the_edge_and_all_others_are_not() -> None:
    found = edge([*SMALL, 900.0, None])
    assert found is not None
    assert -3 < found["low"] < -2
    assert 2 < found["high"] < 3
    assert found["text"] == "1 point lies beyond the edge"


def test_what_can_be_seen_beside_the_others_is_shown() -> None:
    assert edge([*SMALL, 9.0]) is None
    found = edge([*SMALL, 9.0, -90.0, 400.0])
    assert found is not None
    assert found["high"] > 9.5  # it alone would hide nothing
    assert found["text"] == "2 points lie beyond the edge"


def test_an_interval_that_is_wide_hides_nothing_either() -> None:
    values = [*SMALL, 0.1]
    low, high = [one - 0.5 for one in values[:-1]] + [-70.0], [one + 0.5 for one in values[:-1]] + [80.0]
    found = ranges.edge(values, low, high, least=2.0, always=ZONE)
    assert found is not None
    assert found["text"] == "1 interval reaches beyond the edge"


@pytest.mark.parametrize("values", [[], [None] * 9, [0.0, 0.1, 500.0], [7.0] * 30])
def test_of_few_or_equal_ones_all_are_shown(values: list[float | None]) -> None:
    assert ranges.edge(values, least=0.7) is None


def test_a_level_that_holds_now_is_shown_though_it_is_new() -> None:
    times = [10.0 + one / 10 for one in SMALL]
    assert ranges.edge([*times, 60.0], least=1.0, always=[60.0]) is None
    found = ranges.edge([*times, 60.0, 10.0], least=1.0, always=[10.0])
    assert found is not None
    assert found["text"] == "1 point lies beyond the edge"


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=60), st.floats(1e-3, 1e3))
def test_the_bulk_is_never_beyond_the_edge(values: list[float | None], least: float) -> None:
    found = ranges.edge(values, least=least)
    if found is not None:
        known = [value for value in values if value is not None]
        inside = [value for value in known if found["low"] <= value <= found["high"]]
        assert len(known) > len(inside) >= len(known) - 2 * math.ceil(ranges.SHARE * len(known))
        assert max(known) - min(known) >= ranges.HIDES * (found["high"] - found["low"])


def test_where_all_is_nothing_there_is_no_edge() -> None:
    nothing = [0.0] * 9
    assert ranges.edge([*nothing, 5.0], [*nothing, 5.0], [*nothing, 5.0], least=0.0) is None
