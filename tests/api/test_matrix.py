"""What is said of each cell of the coverage matrix."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import statusd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.api import matrix, pages, screen, server
from aibenchd.store import cell_facts

LATENCY = {"type": "NET", "metric": "latency", "unit": "us", "treatment": {"p50": 1.0}}


def stand(state: str = "decided", verdict: str | None = "unchanged", reason: str = "", **more: Any) -> cell_facts.Stand:
    facts = {"id": 1, "commit": "c" * 40, "started": state != "waiting", "decided_at": statusd.NOW}
    return cell_facts.Stand(state=state, verdict=verdict if state == "decided" else None, reason=reason, **facts | more)


def facts(
    decided: cell_facts.Stand | None = None,
    numbers: Sequence[float] = (100.0, 110.0, 105.0),
    newest: cell_facts.Stand | None = None,
    series: Sequence[dict[str, Any]] = (LATENCY,),
) -> cell_facts.Facts:
    return cell_facts.Facts(newest or decided or stand(), decided, numbers if decided else (), series)


def key(cell: server.Cell) -> cell_facts.Key:
    return (cell.repository, cell.benchmark_digest, cell.device, cell.backend)


def shown(known: cell_facts.Facts | None, **cell: str) -> dict[str, Any]:
    configured = statusd.cell(**cell)
    (answer,) = matrix.answer([configured], {} if known is None else {key(configured): known})
    return answer


@pytest.mark.parametrize(
    ("known", "state", "reason"),
    [
        (None, "unplanned", ""),
        (facts(newest=stand("waiting")), "queued", ""),
        (facts(newest=stand("open", started=False)), "queued", ""),
        (facts(newest=stand("open")), "running", ""),
        (facts(newest=stand("skipped", reason="no such file")), "skipped", "no such file"),
        (facts(newest=stand(verdict="identical")), "identical", ""),
        (facts(stand()), "measured", ""),
        (facts(stand(), newest=stand("open")), "measured", ""),
        (facts(stand(), newest=stand("skipped", reason="the treatment does not build")), "measured", ""),
        (facts(stand(verdict="inconclusive", reason="the budget of blocks is spent")), "measured", ""),
        (facts(stand(verdict="inconclusive", reason="asked for mkl"), numbers=()), "broken", "asked for mkl"),
        (facts(stand(verdict="broken", reason="exit code 3")), "broken", "exit code 3"),
        (facts(stand(verdict="measured", reason="wrong output: softmax")), "wrong", "wrong output: softmax"),
        (facts(stand(verdict="broken", reason="treatment: wrong output: x")), "wrong", "treatment: wrong output: x"),
    ],
)
def test_a_cell_is_in_one_state_and_says_why(known: cell_facts.Facts | None, state: str, reason: str) -> None:
    answer = shown(known)
    assert (answer["state"], answer["reason"]) == (state, reason)
    assert (answer["measured"] is not None) is (state in ("measured", "wrong"))


def test_what_is_impossible_now_is_so_whatever_was_measured_once() -> None:
    answer = shown(facts(stand()), impossible="phone offers only dsp")
    assert (answer["state"], answer["reason"], answer["measured"]) == ("impossible", "phone offers only dsp", None)


def test_a_figure_is_a_median_with_its_interval_and_its_unit() -> None:
    answer = shown(facts(stand(), numbers=[6.0, 1.0, 5.0, 2.0, 4.0, 3.0]))
    assert answer["measured"] == {
        "key": "NET latency", "unit": "us", "median": 3.5, "low": 1.0, "high": 6.0, "confidence": 0.96875, "processes": 6,
    }  # fmt: skip
    assert answer["measured_at"] == statusd.NOW.isoformat()
    assert answer["newest"] == {"experiment": 1, "state": "unchanged", "reason": ""}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([LATENCY, LATENCY | {"metric": "memory", "unit": "B"}], ("NET latency", "us")),
        ([LATENCY | {"metric": "accuracy", "unit": "%"}], ("NET accuracy", "%")),
        ([LATENCY | {"metric": "a"}, LATENCY | {"metric": "b"}], ("", "")),
        ([], ("", "")),
    ],
)
def test_a_figure_is_of_the_series_that_is_decided_on_where_that_is_clear(
    series: list[dict[str, Any]], expected: tuple[str, str]
) -> None:
    figure = shown(facts(stand(), series=series))["measured"]
    assert (figure["key"], figure["unit"]) == expected


def test_an_accuracy_is_shown_as_it_is_and_not_as_it_is_decided_on() -> None:
    series = [LATENCY, LATENCY | {"type": "NET_ACCURACY", "metric": "accuracy", "unit": "%"}]
    figure = shown(facts(stand(), numbers=[1 / 80, 1 / 75, 1 / 70], series=series), metric="accuracy")["measured"]
    assert (figure["key"], figure["unit"]) == ("NET_ACCURACY accuracy", "%")
    assert (figure["low"], figure["median"], figure["high"]) == pytest.approx((70, 75, 80))


def test_how_outputs_compare_is_told_beside_the_time() -> None:
    error = {"type": "ERROR softmax", "metric": "max_absolute", "unit": "", "treatment": {"p50": 0.1}}
    assert shown(facts(stand(), series=[LATENCY, error]))["outputs"] == [error]


def test_the_fastest_of_a_row_is_right_and_has_another_beside_it() -> None:
    cells = [statusd.cell(backend=name) for name in ("slow", "fast", "wrong", "memory", "none")]
    alone = statusd.cell(row="other", benchmark_digest="e" * 64)
    known = {
        key(cells[0]): facts(stand(), [2.0], series=[LATENCY | {"unit": "ms"}]),
        key(cells[1]): facts(stand(), [1_500.0]),
        key(cells[2]): facts(stand(reason="wrong output: softmax"), [1.0]),
        key(cells[3]): facts(stand(), [1.0], series=[LATENCY | {"metric": "memory"}]),
        key(alone): facts(stand(), [1.0]),
    }
    answer = matrix.answer([*cells, alone], known)
    assert [cell["backend"] for cell in answer if cell["fastest"]] == ["fast"]


def test_a_person_sees_what_is_fastest_and_why_the_rest_is_not_ranked() -> None:
    cells = [
        statusd.cell(backend="mkl"),
        statusd.cell(backend="onednn"),
        statusd.cell(backend="eigen"),
        statusd.cell(backend="dsp", impossible="lab-host offers only cpu"),
    ]
    known = {
        key(cells[0]): facts(stand(), [12_000.0, 12_100.0, 12_200.0]),
        key(cells[1]): facts(stand(), [11_000.0]),
        key(cells[2]): facts(stand(reason="wrong output: softmax"), [1.0]),
    }
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pages.coverage(screen.Screen(), {"coverage": matrix.answer(cells, known), "left_out": 2})
    head, row, *rest = printed.getvalue().splitlines()
    assert head.split() == ["model", *(f"pytorch@lab-host/{name}" for name in ("eigen", "mkl", "onednn"))]
    assert re.fullmatch(r"net +wrong +12\.1 ms ±0\.8% \d+d +11 ms \d+d \*", row)
    assert "impossible  pytorch@lab-host/dsp    net     lab-host offers only cpu" in rest
    assert "wrong       pytorch@lab-host/eigen  net     wrong output: softmax" in rest
    assert rest[-1] == "and 2 cells more"


def test_where_nothing_can_be_measured_the_models_are_listed_with_why() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        pages.coverage(screen.Screen(), {"coverage": matrix.answer([statusd.cell(impossible="no")], {}), "left_out": 0})
    assert printed.getvalue().splitlines()[:2] == ["model", "net"]
    assert "impossible  pytorch@lab-host  net     no" in printed.getvalue()


def test_columns_are_named_by_the_framework_or_by_the_repository_where_that_tells_more() -> None:
    one = [statusd.cell(backend="mkl"), statusd.cell(framework="caffe2", repository="c2")]
    assert [cell["column"] for cell in matrix.answer(one, {})] == ["pytorch@lab-host/mkl", "caffe2@lab-host"]
    two = [*one, statusd.cell(repository="fork")]
    assert [cell["column"] for cell in matrix.answer(two, {})] == ["engine@lab-host/mkl", "caffe2@lab-host", "fork@lab-host"]


@given(st.lists(st.floats(0.001, 1e9), min_size=1, max_size=40))
def test_an_interval_encloses_the_median_and_is_as_sure_as_asked_where_that_can_be(values: list[float]) -> None:
    interval = matrix.interval_of_median(values)
    assert interval.low <= np.median(values) <= interval.high or len(values) == 1
    assert {interval.low, interval.high} <= set(values)
    assert (interval.confidence >= 0.95) is (len(values) >= 6)


@pytest.mark.parametrize("count", [2, 6, 9, 25])
def test_an_interval_is_as_sure_as_it_says(count: int) -> None:
    """Of many draws, whatever their distribution, as many hold the true median."""
    rng, draws = np.random.default_rng(count), 4_000
    held = 0
    for _ in range(draws):
        interval = matrix.interval_of_median(list(rng.exponential(size=count)))
        held += interval.low <= math.log(2) <= interval.high
    deviation = math.sqrt(interval.confidence * (1 - interval.confidence) / draws)
    assert abs(held / draws - interval.confidence) < 5 * deviation
