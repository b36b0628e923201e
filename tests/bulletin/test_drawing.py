"""Where the parts of a picture lie."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.bulletin import drawing
from aibenchd.web import charts

RATIOS = st.floats(-0.99, 1e9)
VERDICTS = st.sampled_from(["regressed", "improved", "broken", "unchanged", "identical", "inconclusive", "measured"])


def block(number: int, change: float, half: float) -> dict[str, Any]:
    ends = {"estimate": change, "low": change - half, "high": change + half}
    return {"number": number, "order": "TC", "treatment": 1 + change, "control": 1.0, **ends}


def ended(number: int, verdict: str, change: float | None, half: float = 0.01) -> dict[str, Any]:
    ends = {"low": None, "high": None} if change is None else {"low": change - half, "high": change + half}
    named = {"id": number, "treatment": f"{number:040x}", "subject": "x", "run_type": "benchmark"}
    return {**named, "verdict": verdict, "state": "decided", "estimate": change, **ends}


def numbers(at: dict[str, Any]) -> list[tuple[float, float]]:
    """The places that paths move and draw to, where they are absolute."""
    paths = " ".join(path for name in ("bands", "lines", "dots") for _, path in at[name])
    paths += " ".join(path for _, *both in at["marks"] for path in both)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.e+-]+) (-?[\d.e+-]+)", paths)]


def inside(at: dict[str, Any]) -> bool:
    reach = drawing.MARK + 1
    return all(
        drawing.LEFT - reach <= x <= drawing.RIGHT + reach and drawing.TOP - reach <= y <= drawing.BOTTOM + reach
        for x, y in numbers(at)
    )


@given(st.lists(st.tuples(RATIOS, st.floats(0, 1e6)), min_size=1, max_size=40), st.none() | st.floats(0.001, 0.9))
def test_any_course_lies_in_its_frame(changes: list[tuple[float, float]], min_effect: float | None) -> None:
    chart = charts.course([block(number, *change) for number, change in enumerate(changes)], min_effect)
    assert chart is not None
    assert inside(drawing.drawn(chart))


def test_what_is_regressed_in_the_tail_has_the_mark_of_what_is_regressed() -> None:
    alone, in_tail = (charts.changes([ended(1, "regressed", 0.4) | {"in_tail": tail}], 0.02) for tail in (False, True))
    (name, _, shape), (said, _, of_tail) = drawing.drawn(alone)["marks"][0], drawing.drawn(in_tail)["marks"][0]
    assert (name, said) == ("regressed", "regressed in the tail")
    assert shape == of_tail


@given(st.lists(st.tuples(VERDICTS, st.none() | RATIOS), min_size=1, max_size=60))
def test_any_history_lies_in_its_frame(items: list[tuple[str, float | None]]) -> None:
    chart = charts.changes([ended(number, *item) for number, item in enumerate(items)], 0.02)
    if chart["x"]:
        at = drawing.drawn(chart)
        assert inside(at)
        assert {name for name, *_ in at["marks"]} == set(chart["points"]["verdicts"])


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=200), st.lists(st.floats(1e-9, 1e9), max_size=200))
def test_any_distribution_lies_in_its_frame(treatment: list[float], control: list[float]) -> None:
    chart = charts.distribution({"treatment": treatment, "control": control}, "us")
    if chart is not None:
        assert inside(drawing.drawn(chart))


def test_a_value_lies_where_its_scale_has_it() -> None:
    scale = drawing.Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale(value) for value in (0, 2.5, 10, -5, 99)] == [100.0, 75.0, 0.0, 100.0, 0.0]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 10.0, ["0", "2", "4", "6", "8", "10"]),
        (-2.3, 4.1, ["\N{MINUS SIGN}2", "0", "2", "4"]),
        (0.0, 0.07, ["0", "0.02", "0.04", "0.06"]),
        (9.31, 9.34, ["9.31", "9.32", "9.33", "9.34"]),
        (1234.0, 9876.0, ["2000", "4000", "6000", "8000"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in drawing._ticks(low, high)] == texts


@given(st.floats(-1e7, 1e7), st.floats(1e-6, 1e7))
def test_ticks_are_few_and_within(low: float, width: float) -> None:
    ticks = drawing._ticks(low, low + width)
    assert len(ticks) <= 2 * drawing.TICKS
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value, _ in ticks)


@given(st.integers(1, 40))
def test_no_commit_is_cut_at_the_edge(commits: int) -> None:
    items = [ended(number, "unchanged", 0.001) for number in range(commits)]
    ticks = drawing.drawn(charts.changes(items, 0.02))["ticks_x"]
    halves = [len(text) * drawing.CHARACTER / 2 for _, text in ticks]
    assert all(half <= place <= drawing.WIDTH - half for (place, _), half in zip(ticks, halves, strict=True))
    both = zip(ticks, ticks[1:], halves, halves[1:], strict=False)
    assert all(one + own <= other - next_ for (one, _), (other, _), own, next_ in both)


def test_first_intervals_do_not_make_the_last_one_small() -> None:
    blocks = [block(number, 0.05, 3.0 / (number + 1) ** 2) for number in range(20)]
    chart = charts.course(blocks, 0.02)
    assert chart is not None
    low, high = drawing._span_y(chart)
    assert low > -15
    assert high < 15


def test_levels_are_seen_from_the_oldest_commit_on() -> None:
    found = [{"commit": f"{number:040x}", "ratio": 1 + number / 100, "low": 1.0, "high": 1.5} for number in range(20)]
    low, high = drawing._span_y(charts.levels(found, {}))
    assert low <= 0
    assert high >= 50


def test_a_line_has_as_many_points_as_can_be_seen() -> None:
    blocks = [block(number, 0.05, 0.01) for number in range(5_000)]
    chart = charts.interval(blocks, 0.02)
    assert chart is not None
    at = drawing.drawn(chart)
    ((_, line),) = at["lines"]
    assert line.count("L") <= drawing.POINTS + 1
    assert (
        f"L{drawing.drawn(chart) and drawing.Scale(*drawing._span_x(chart['x']), drawing.LEFT, drawing.RIGHT)(4_999):g}" in line
    )


def test_words_say_what_is_drawn() -> None:
    course = charts.course([block(number, 0.061, 0.005) for number in range(12)], 0.02)
    assert course is not None
    assert drawing.words(course) == (
        "change after each block, with its interval: change: 6.1 % (5.6 to 6.6) at the last of 12; "
        "each block: 6.1 % at the last of 12"
    )
    items = [ended(1, "unchanged", 0.001), ended(2, "regressed", 0.061), ended(3, "broken", None)]
    said = drawing.words(charts.changes(items, 0.02))
    assert said == f"change against the control: 1 broken, 1 regressed, 1 unchanged; the largest change is +6.1 % at {'0' * 12} x"


def test_steps_go_through_each_bin() -> None:
    chart = charts.distribution({"treatment": [1.0, 1.0, 2.0], "control": [1.0, 2.0]}, "us")
    assert chart is not None
    at = drawing.drawn(chart)
    assert [colour for colour, _ in at["lines"]] == ["treatment", "control"]
    assert all(path.count("H") == charts.BINS for _, path in at["lines"])
