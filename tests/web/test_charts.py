"""What charts and tables show of what was measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import statusd

from aibenchd.api import server
from aibenchd.web import charts, experimental, render, tables


def decided(number: int, **more: Any) -> dict[str, Any]:
    facts = {
        "id": number,
        "treatment": f"{number:040}",
        "subject": f"change {number}",
        "run_type": "benchmark",
        "state": "decided",
    }
    figures = {"verdict": "unchanged", "estimate": 0.001, "low": -0.004, "high": 0.006, "results": []}
    return facts | figures | more


def test_a_history_goes_from_left_to_right_and_shows_what_has_no_figure_where_it_broke() -> None:
    history = [decided(3, verdict="broken", estimate=None, low=None, high=None), decided(2), decided(1, verdict="regressed")]
    chart = charts.changes(history, 0.02)
    assert chart["points"] is not None
    assert chart["points"]["links"] == ["/experiments/1", "/experiments/2", "/experiments/3"]
    assert chart["points"]["verdicts"] == ["regressed", "unchanged", "broken"]
    assert chart["points"]["values"] == [0.1, 0.1, None]
    assert chart["zone"] == [-2.0, 2.0]
    assert chart["labels"] == [f"{'0' * 12} change {number}" for number in (1, 2, 3)]


def test_a_line_is_broken_where_the_specification_changed_though_what_changed_it_is_not_shown() -> None:
    measured = [{"metric": "latency", "unit": "us", "treatment": {"p50": 1000.0}}]
    changed = {4: {"changed": "specification", "verdict": "broken", "estimate": None}, 6: {"changed": "number", "number": "mean"}}
    history = [decided(number, results=[] if number == 4 else measured) | changed.get(number, {}) for number in range(7, 0, -1)]
    times = charts.times(history, "latency")
    assert times is not None
    assert times["breaks"] == [{"at": 3, "commit": f"{5:040}", "text": "another specification"}]
    assert [(one["at"], one["text"]) for one in charts.changes(history, 0.02)["breaks"]] == [
        (3, "another specification"),
        (5, "decided on another number, the mean"),
    ]
    assert charts.changes(history[:3], 0.02)["breaks"] == [
        {"at": 1, "commit": f"{6:040}", "text": "decided on another number, the mean"}
    ]


def test_a_verdict_that_no_second_look_confirmed_is_shown_as_what_became_of_it() -> None:
    look = {"finding": 1, "state": "unconfirmed", "confirmed": False, "verify": 9, "estimate": 0.01, "low": -0.01, "high": 0.03}
    history = [decided(number, verdict="regressed", second_look=look | {"confirmed": number == 1}) for number in (2, 1)]
    points = charts.changes(history, 0.02)["points"]
    assert points is not None
    assert points["verdicts"] == ["regressed", "unconfirmed"]
    assert points["words"] == ["regressed", "regressed (unconfirmed: inconclusive)"]


def test_slow_iterations_have_a_chart_where_they_are_judged() -> None:
    block = {"number": 0, "order": "TC", "treatment": 1001.0, "control": 999.0, "treatment_tail": 1415.0, "control_tail": 1041.0}
    chart = charts.tails([block], "us")
    assert chart is not None
    assert [(line["colour"], line["values"]) for line in chart["lines"]] == [("treatment", [1.415]), ("control", [1.041])]
    assert charts.tails([{**block, "treatment_tail": None, "control_tail": None}], "us") is None


def test_a_distribution_counts_every_sample_of_an_arm_once() -> None:
    samples = {"treatment": [2_000.0 + one % 97 for one in range(1_000)], "control": [1_900.0 + one % 89 for one in range(700)]}
    samples["control"].append(math.nan)
    samples["treatment"] += [90_000.0] * 3
    chart = charts.distribution(samples, "us")
    assert chart is not None
    assert (chart["x_unit"], chart["beyond"]) == ("ms", 3)
    shares = {line["name"]: sum(value for value in line["values"] if value is not None) for line in chart["lines"]}
    assert shares["control"] == pytest.approx(100, abs=0.05)
    assert shares["treatment"] == pytest.approx(100 * 1_000 / 1_003, abs=0.05)
    assert all(len(line["values"]) == len(chart["x"]) for line in chart["lines"])


@pytest.mark.parametrize(
    ("treatment", "control", "beyond", "end"),
    [
        ([10.0 + one % 7 / 10 for one in range(24)] + [400.0], [10.0 + one % 5 / 10 for one in range(25)], 1, 10.6),
        ([10.0, 10.1, 10.2, 10.3] * 3 + [50.0], [], 1, 10.3),  # however few there are
        ([10.0, 10.1] * 9, [20.0, 20.1] * 9, 0, 20.1),  # one arm is far slower: it is none of the few
        ([10.0, 10.1, 10.2, 10.3] * 2 + [10.4], [], 0, 10.4),
        ([10.0] * 30 + [10.5], [], 0, 10.5),
        ([10.0] * 30 + [10.1] * 2 + [500.0], [], 1, 10.1),  # by a clock that is coarse
    ],
)
def test_a_sample_that_is_far_out_leaves_the_others_more_than_one_bar(
    treatment: list[float], control: list[float], beyond: int, end: float
) -> None:
    chart = charts.distribution({"treatment": treatment, "control": control}, "ms")
    assert chart is not None
    assert (chart["beyond"], chart["x"][-1]) == (beyond, pytest.approx(end))
    assert not beyond or all(sum(bool(value) for value in line["values"]) > 1 for line in chart["lines"])


def test_the_bump_of_slow_iterations_is_shown_where_these_are_looked_at() -> None:
    fast = [10.0 + one % 13 / 10 for one in range(270)]
    slow = [20.0 + one % 7 / 10 for one in range(30)]  # a tenth of one arm's
    samples = {"treatment": fast + slow, "control": fast + fast[:30] + [500.0]}
    usual = charts.distribution(samples, "ms")
    assert usual is not None
    assert usual["beyond"] == 31
    chart = charts.distribution(samples, "ms", charts.BULK_OF_TAIL)
    assert chart is not None
    assert chart["beyond"] == 1
    treatment, control = (line["values"] for line in chart["lines"])
    right = [place for place, edge in enumerate(chart["x"][:-1]) if edge > 15]
    assert sum(treatment[place] for place in right) == pytest.approx(10)
    assert not any(control[place] for place in right)


@pytest.mark.parametrize("samples", [{}, {"treatment": []}, {"treatment": [1.0, 1.0], "control": [1.0]}])
def test_what_is_all_the_same_has_no_distribution(samples: dict[str, list[float]]) -> None:
    assert charts.distribution(samples, "us") is None


@pytest.mark.parametrize(
    ("values", "unit", "said", "shown"),
    [
        ([9_148.2, 9_115.0, None], "us", ["9.148", "9.115", ""], "ms"),
        ([0.25, 0.5], "accuracy", ["0.2500", "0.5000"], "accuracy"),
        ([0.0, 0.0], "us", ["0", "0"], "ns"),
        ([], "us", [], "us"),
    ],
)
def test_values_of_a_column_have_as_many_digits_and_one_unit(
    values: list[float | None], unit: str, said: list[str], shown: str
) -> None:
    assert charts.aligned(values, unit) == (said, shown)


def test_an_interval_is_drawn_within_its_row() -> None:
    drawn = render.forest({"estimate": 0.9, "low": 0.01, "high": None}, render.spread([{"estimate": 0.9}]))
    assert drawn is not None
    assert 0 <= drawn["low"] <= drawn["at"] <= drawn["width"]
    assert render.forest({"estimate": None}, 0.02) is None


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.0621, "+6.2\xa0%"), (-0.0621, "\N{MINUS SIGN}6.2\xa0%"), (-0.0001, "0.0\xa0%"), (None, "")]
)
def test_a_change_has_its_sign_where_it_is_one(ratio: float | None, said: str) -> None:
    assert render.percent(ratio) == said


def cell(row: str, column: str, **more: Any) -> dict[str, Any]:
    source, _, place = column.partition("@")
    device, _, backend = place.partition("/")
    facts = {"row": row, "column": column, "framework": source, "device": device, "backend": backend, "fastest": False}
    figure = {"key": "NET latency", "unit": "us", "median": 2.0}
    return facts | {"state": "measured", "measured": figure} | more


def configured(row: str, device: str, **more: str) -> server.Cell:
    return statusd.cell(row=row, device=device, backend="cpu", **more)


def test_of_a_large_matrix_one_page_is_looked_at() -> None:
    cells = [configured(f"net{row:03}", f"device-{device}") for row in range(120) for device in range(20)]
    part = tables.part(cells, tables.Asked(page=3))
    assert {cell.row for cell in part} == {f"net{row}" for row in range(100, 120)}
    assert len(part) == 400
    assert tables.part(cells, tables.Asked(state="broken")) is cells  # which rows have one is not known before
    few = tables.named(cells, tables.Asked(model="NET00", device="device-7"))
    assert [cell.row for cell in few] == [f"net{row:03}" for row in range(10)]
    assert tables.part(few, tables.Asked()) is few


def test_the_matrix_of_a_page() -> None:
    cells = [cell(f"net{row:03}", f"pytorch@{device}/cpu") for row in range(70) for device in ("a", "b")]
    cells.append(cell("other", "tflite@a/cpu", state="impossible", measured=None))
    whole = tables.matrix(cells, tables.Asked())
    assert (len(whole["rows"]), whole["found"], whole["columns"]) == (tables.ROWS, 71, ["pytorch@a/cpu", "pytorch@b/cpu"])
    assert whole["counts"] == {"measured": 140, "impossible": 1}
    assert len(tables.matrix(cells, tables.Asked(page=2))["rows"]) == 71 - tables.ROWS
    impossible = tables.matrix(cells, tables.Asked(state="impossible"))
    assert [(row, len(found)) for row, found in impossible["rows"]] == [("other", 1)]
    assert impossible["columns"] == ["tflite@a/cpu"]


def test_a_cell_is_so_much_slower_than_the_fastest_of_its_row() -> None:
    fastest = cell("net", "pytorch@a/cpu", fastest=True)
    slower = cell("net", "pytorch@b/cpu", measured={"key": "NET latency", "unit": "us", "median": 3.0})
    other = cell("net", "pytorch@c/cpu", measured={"key": "NET latency", "unit": "J", "median": 3.0})
    row = [fastest, None, slower, other]
    assert [tables.relative(one, row) for one in row] == [None, None, 0.5, None]


def test_an_experiment_is_repeated_by_a_command_that_a_shell_reads_as_meant() -> None:
    item = {"run_type": "benchmark", "repository": "engine", "benchmark": "net; rm -rf /", "device": "host", "request": None}
    item |= {"treatment": "a" * 40, "control": None}
    command = experimental.command(item | {"backend": ""})
    assert command == f"aibenchctl ab {'a' * 40} --repository engine --benchmark 'net; rm -rf /' --device host --wait"
    (one,) = experimental.command(item | {"backend": "x\nrm -rf /"}).splitlines()
    assert one == f"{command}    # with each backend that is asked for there; this was x rm -rf /"
