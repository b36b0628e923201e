from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.frameworks import base, gathering, generic, observer, pytorch

NOTHING = model.Benchmark({}, {})


def parse(*rows: str, **whole: Any) -> base.Output:
    return generic.Generic().parse("\n".join(rows), model.Benchmark(whole, {}))


def row(record: Any, identifier: str = observer.PYTORCH) -> str:
    return identifier + json.dumps(record)


def net(**facts: Any) -> str:
    return row({"type": "NET", "metric": "latency", "unit": "us", **facts})


def values(*rows: str) -> tuple[float, ...]:
    return tuple(value for series in parse(*rows).series for value in series.values)


def test_records_are_gathered_by_key_in_the_order_of_first_sight() -> None:
    operator = {"type": "ID_0_Conv", "metric": "latency", "unit": "us", "value": 7}
    found = parse("loading", net(value=1.5), row(operator), "I0101 PyTorchObserver {}", net(value="2.5"), net(values=[3, "4"]))
    assert found.series == (
        model.Series("NET", "latency", "us", (1.5, 2.5, 3.0, 4.0)),
        model.Series("ID_0_Conv", "latency", "us", (7.0,)),
    )


def test_caffe2_s_older_form() -> None:
    record = {"NET": {"latency": {"value": "10.5", "unit": "us"}}, "ID_0_Conv": {"latency": {"value": 4, "unit": "us"}}}
    text = {"NET": {"flops": {"info_string": "many", "unit": "FLOP"}}, "depth": 3}
    found = parse(row(record, observer.CAFFE2), row(record, observer.CAFFE2), row(text, observer.CAFFE2))
    assert found.series == (
        model.Series("NET", "latency", "us", (10.5, 10.5)),
        model.Series("ID_0_Conv", "latency", "us", (4.0, 4.0)),
        model.Series("NET", "flops", "FLOP", (), "many"),
    )


def test_a_summary_s_median_stands_for_its_samples() -> None:
    assert parse(net(summary={"p50": 5, "mean": 6}, num_runs=9)).series == (
        model.Series("NET", "latency", "us", (5.0,)),
        model.Series("NET", "runs", "", (9.0,)),
    )
    assert values(net(summary={"mean": "6"})) == (6.0,)
    assert values(net(summary={"p50": 5}, value=1)) == (1.0,)


def test_the_backend_is_evidence_and_no_series() -> None:
    stated = [row({"type": "NET", "metric": "backend", "unit": "", "info_string": name}) for name in ("onednn", "mkl", "onednn")]
    assert parse(net(value=1), stated[0], stated[2]) == base.Output((model.Series("NET", "latency", "us", (1.0,)),), "onednn")
    assert parse(*stated).backend == "mkl+onednn"
    assert parse(net(value=1)).backend == ""


def test_text_is_kept() -> None:
    (series,) = parse(row({"type": "NET", "metric": "output_digest", "unit": None, "info_string": "ab"})).series
    assert series == model.Series("NET", "output_digest", "", (), "ab")


def test_samples_in_another_unit_are_not_mixed_in() -> None:
    assert values(net(value=1), row({"type": "NET", "metric": "latency", "unit": "ms", "value": 2})) == (1.0,)


@pytest.mark.parametrize(
    "broken",
    [
        "PyTorchObserver",
        "PyTorchObserver ",
        'PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "value": 1',
        'PyTorchObserver {"type": "NET", "metric": "laten' + net(value=1),
        "PyTorchObserver [1, 2]",
        "PyTorchObserver 5",
        "PyTorchObserver {" + '"a":{' * 5000,
        "PyTorchObserver " + "[" * 100_000,
        'PyTorchObserver {"type": 1, "metric": "latency", "unit": "us", "value": 1}',
        'PyTorchObserver {"type": "NET", "metric": ["latency"], "unit": "us", "value": 1}',
        row({"custom_output": [[1, 2]], "table_name": "t", "x": {"y": {"value": 1}}}),
        "Caffe2Observe {}",
    ],
)
def test_what_is_no_record_is_skipped(broken: str) -> None:
    assert values(broken, net(value=9)) == (9.0,)


def test_a_record_ends_where_its_json_ends() -> None:
    assert values(net(value=1) + " and " + net(value=2)) == (1.0,)


@pytest.mark.parametrize("value", [True, None, "fast", [1], {"p50": 1}, ""])
def test_what_is_no_number_is_no_sample(value: Any) -> None:
    assert values(net(values=[value, 1])) == (1.0,)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 10_000, '"nan"', '"inf"', "1e200"])
def test_what_is_not_finite_is_seen(text: str) -> None:
    (value,) = values('PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "value": ' + text + "}")
    assert not math.isfinite(value)


def test_the_framework_s_identifier_alone_counts() -> None:
    caffe2 = row({"NET": {"latency": {"value": 1, "unit": "us"}}}, observer.CAFFE2)
    assert pytorch.PyTorch().parse(caffe2, NOTHING).series == ()
    assert len(generic.Generic().parse(caffe2, NOTHING).series) == 1


def test_a_converter_takes_the_place_of_the_identifier() -> None:
    record = json.dumps({"type": "NET", "metric": "latency", "unit": "us", "value": 1})
    own = {"name": "json_with_identifier_converter", "args": {"identifier": "MINE:"}}
    assert len(parse(f"MINE:{record}", converter=own).series) == 1
    assert parse(f"PyTorchObserver {record}", converter=own).series == ()
    assert len(parse(f"x {record}", converter={"name": "json_converter"}).series) == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_VALUES", 10)
    monkeypatch.setattr(gathering, "MAX_SERIES", 3)
    rows = [row({"type": f"ID_{number}", "metric": "latency", "unit": "us", "values": [1] * 4}) for number in range(9)]
    found = parse(*rows).series
    assert [(series.type, len(series.values)) for series in found] == [("ID_0", 4), ("ID_1", 4), ("ID_2", 2)]
    (series,) = parse(row({"type": "N" * 9999, "metric": "m", "unit": "u", "info_string": "t" * 99_999})).series
    assert (len(series.type), len(series.text)) == (gathering.MAX_NAME, gathering.MAX_TEXT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("NET"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "metric", "unit", "value", "values", "info_string", "summary", "NET"]), inner)
    ),
    max_leaves=20,
)
PIECES = st.sampled_from(
    [
        "PyTorchObserver ",
        "Caffe2Observer ",
        "{",
        "}",
        '"',
        "\n",
        "\r\n",
        "\\ud800",
        "\x00",
        "\u2028",
        "é",
        '{"type": "NET", "metric": "latency"',
    ]
)
LINES = st.one_of(JSON.map(row), JSON.map(lambda value: row(value)[:-3]), st.lists(PIECES | st.text(max_size=4)).map("".join))


@given(st.lists(LINES, max_size=12).map("\n".join))
@example('PyTorchObserver {"type": "\\ud800", "metric": "\\u0000\\n", "unit": "", "info_string": "\\udfff"}')
def test_hostile_output_is_read_without_an_exception(output: str) -> None:
    found = generic.Generic().parse(output, NOTHING)
    assert len({series.key for series in found.series}) == len(found.series)
    for series in found.series:
        assert all(type(value) is float for value in series.values)
        assert (series.type + series.metric + series.unit).isprintable()
        (series.key + series.text + found.backend).encode()


@given(st.lists(st.floats(-1e100, 1e100), min_size=1), st.text("aß/_:", min_size=1), st.text("xyz"))
def test_what_is_printed_is_what_is_read(samples: list[float], kind: str, unit: str) -> None:
    record = {"type": kind, "metric": "latency", "unit": unit, "values": samples}
    assert parse(row(record)).series == (model.Series(kind, "latency", unit, tuple(samples)),)
