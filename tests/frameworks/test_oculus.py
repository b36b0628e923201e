from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.frameworks import base, oculus

RECORDED = Path(__file__).parents[1] / "data/outputs/oculus_report.txt"
NOTHING = model.Benchmark({}, {})
PLACE = base.Place(
    target_directory="/data/",
    host_directory="/host",
    build_directory="/system/bin",
    programs={"program": "/system/bin/tracker"},
    input_files={"a": "/data/a.bin", "b": "/data/b.bin"},
    output_files={"x": "/data/x.bin"},
)


def file(name: str) -> dict[str, str]:
    return {"filename": name, "location": f"//{name}"}


def parse(output: str) -> base.Output:
    return oculus.Oculus().parse(output, NOTHING)


def values(output: str) -> dict[str, tuple[float, ...]]:
    return {series.key: series.values for series in parse(output).series}


def record(value: float, **others: Any) -> dict[str, Any]:
    return {"type": "NET", "metric": "latency", "unit": "us", "value": value, **others}


def test_a_report_s_records_are_gathered_over_its_tests() -> None:
    expected = {"NET latency": (812.5, 820.25), "tracker latency": (410.0, 402.0)}
    assert values(RECORDED.read_text()) == expected
    assert values("noise\n" + json.dumps([[record(1)], [record(2)]], indent=2) + "\nnoise") == {"NET latency": (1.0, 2.0)}


def test_records_in_rows_are_read_bare_and_named() -> None:
    old = {"NET": {"latency": {"value": "2.5", "unit": "us"}}}
    rows = [json.dumps(record(1)), "Caffe2Observer " + json.dumps(old), "PyTorchObserver " + json.dumps(record(3))]
    assert values("\n".join(rows)) == {"NET latency": (1.0, 2.5, 3.0)}
    assert values("\n".join([rows[0], json.dumps([record(2)]), rows[2]]))["NET latency"] == (2.0, 1.0, 3.0)


def test_a_backend_that_is_stated_is_believed() -> None:
    stated = record(0, metric="backend", info_string="dsp")
    assert parse(json.dumps([stated])).backend == "dsp"


def test_a_report_that_does_not_end_gives_the_lists_that_do() -> None:
    whole = "[\n" + ",\n".join(json.dumps([record(value)]) for value in (1, 2))
    assert values(whole) == {"NET latency": (1.0, 2.0)}


def test_a_test_without_commands_has_fai_pep_s_and_prints_the_report() -> None:
    test = {"input_files": {"a": file("a"), "b": file("b")}, "output_files": {"x": file("x")}}
    assert oculus.Oculus().commands(model.Benchmark({}, test), PLACE) == (
        "/system/bin/tracker --json /data/report.json --input /data/a.bin /data/b.bin --output /data/x.bin",
        "cat /data/report.json",
    )
    assert oculus.Oculus().commands(NOTHING, PLACE)[0] == "/system/bin/tracker --json /data/report.json"
    assert oculus.Oculus().commands(model.Benchmark({}, {"commands": ["{program} x"]}), PLACE) == ("/system/bin/tracker x",)


@given(st.integers(0, 400), st.integers(0, 400), st.text(max_size=5))
def test_truncated_and_broken_reports_are_read_without_an_exception(start: int, length: int, noise: str) -> None:
    text = RECORDED.read_text()
    found = parse(text[start : start + length] + noise + text[length:])
    for series in found.series:
        assert (series.type + series.metric + series.unit).isprintable()
        (series.key + series.text + found.backend).encode()


@pytest.mark.parametrize("row", ["[", "[[", "[1,", "[{", '["', "[" * 5000, " " * 5000, "[1, 2]"])
def test_much_of_the_same_is_read_to_its_end(row: str) -> None:
    assert parse("\n".join([row] * (1_000_000 // len(row)))).series == ()
