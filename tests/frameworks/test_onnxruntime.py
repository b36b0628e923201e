from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibenchd import errors, model
from aibenchd.frameworks import base, gathering, observer, onnxruntime

RECORDED = Path(__file__).parents[1] / "data/outputs"
NOTHING = model.Benchmark({}, {})
PLACE = base.Place(
    "/dev/work/",
    "/host",
    "/build",
    {"program": "/build/onnxruntime_benchmark"},
    {"network": "/dev/net.onnx", "weights": "/dev/net.data"},
    {"ids": "/dev/ids.npy", "mask": "/dev/mask.npy"},
    backend="xnnpack",
)


def file(name: str) -> dict[str, str]:
    return {"filename": name, "location": f"//{name}"}


def commands(files: dict[str, Any] | None = None, whole: dict[str, Any] | None = None, **test: Any) -> tuple[str, ...]:
    named = {"network": file("net.onnx")} if files is None else files
    fields = {"identifier": "i", "metric": "delay", "iter": 50, "warmup": 1, **test}
    return onnxruntime.OnnxRuntime().commands(
        model.Benchmark({"name": "net", "files": named, **(whole or {})}, fields, "f.json"), PLACE
    )


def parse(output: str) -> base.Output:
    return onnxruntime.OnnxRuntime().parse(output, NOTHING)


def values(output: base.Output) -> dict[str, tuple[float, ...]]:
    return {series.key: series.values for series in output.series if series.values}


# ---------------------------------------------------------------- commands

IMAGE = {"data": {"shapes": [[1, 3, 224, 224]], "type": "float"}}
END = " --backend=xnnpack --operators --output-directory /dev/work/"


def test_a_test_without_commands_has_the_runner_s() -> None:
    assert commands(inputs=IMAGE) == (
        "/build/onnxruntime_benchmark --model /dev/net.onnx --input-dims 1,3,224,224 --input-type float"
        " --warmup 1 --iterations 50" + END,
    )


def test_several_inputs_are_separated_by_semicolons() -> None:
    (found,) = commands(inputs={**IMAGE, "n": {"shapes": [[1]], "type": "int64"}, "m": {"shapes": [[2, 3]]}})
    assert "--input-dims '1,3,224,224;1;2,3' --input-type 'float;int64;float'" in found


def test_counts_that_are_not_given_are_the_runner_s() -> None:
    assert commands(inputs=IMAGE, iter=-1, warmup=0)[0].endswith("--input-type float --warmup 0" + END)


def test_inputs_from_files_and_a_network_among_several_files() -> None:
    files = {"weights": file("net.data"), "network": file("net.onnx")}
    assert commands(files, input_files={"ids": file("ids.npy"), "mask": file("mask.npy")}) == (
        '/build/onnxruntime_benchmark --model /dev/net.onnx --input-file "/dev/ids.npy;/dev/mask.npy"'
        " --warmup 1 --iterations 50" + END,
    )


def test_a_model_without_files_names_a_function() -> None:
    assert commands({}, {"module": "engine:net"}, inputs=IMAGE)[0].startswith(
        "/build/onnxruntime_benchmark --module engine:net --input-dims 1,3,224,224"
    )


def test_commands_that_are_given_stay() -> None:
    assert commands(commands=["{program} {files.network} {iter}"]) == ("/build/onnxruntime_benchmark /dev/net.onnx 50",)


@pytest.mark.parametrize("files", [{}, {"a": file("a"), "b": file("b")}])
def test_a_model_that_does_not_tell_its_network_says_so(files: dict[str, Any]) -> None:
    with pytest.raises(errors.CommandError, match=r"f\.json: i: does not say what to run: .* a file called network or model"):
        commands(files, inputs=IMAGE)


# ---------------------------------------------------------------- what programs print


def test_the_runner_s_lines_are_read() -> None:
    found = parse((RECORDED / "onnxruntime_runner.txt").read_text())
    assert found.backend == "cpu"
    operators = {key: samples for key, samples in values(found).items() if key.startswith("ID_")}
    assert len(operators) == 41
    assert {len(samples) for samples in operators.values()} == {3}
    assert len(values(found)["NET latency"]) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "onnxruntime_perf_test_2019",
            {"runs": 1000, "latency": 58710.8, "latency_mean": 58805.3, "latency_min": 55977.7, "latency_p90": 59984.5},
        ),
        (
            "onnxruntime_perf_test_2024",
            {"runs": 100, "latency": 60356.2, "latency_mean": 62293.5, "first_run": 85000, "load": 2747160},
        ),
        ("onnxruntime_perf_test_2026", {"runs": 5, "latency": 98961.997, "latency_mean": 98961.997, "load": 217932}),
    ],
)
def test_onnx_runtime_s_own_text(name: str, expected: dict[str, float]) -> None:
    found = parse((RECORDED / f"{name}.txt").read_text())
    assert found.backend == ""
    assert all(series.unit == ("" if series.metric == "runs" else "us") for series in found.series)
    for metric, value in expected.items():
        assert values(found)[f"NET {metric}"] == pytest.approx((value,))


def test_two_runs_are_two_samples() -> None:
    text = (RECORDED / "onnxruntime_perf_test_2024.txt").read_text()
    assert values(parse(text * 2))["NET latency"] == pytest.approx((60356.2, 60356.2))


def test_text_that_is_cut_within_a_number_is_no_sample() -> None:
    assert parse("P50 Latency: 0.0603").series == ()
    assert parse("Average inference time cost: 62.29").series == ()
    assert parse("P50 Latency: zero s\nMax Latency:  s\nTotal inference requests: 1.5").series == ()


@pytest.mark.parametrize("text", ["nan", "inf", "1e999"])
def test_what_is_not_finite_is_seen(text: str) -> None:
    (value,) = values(parse(f"P50 Latency: {text} s"))["NET latency"]
    assert not math.isfinite(value)


# ---------------------------------------------------------------- hostile output

OUTPUTS = [path.read_text() for path in sorted(RECORDED.glob("onnxruntime_*.txt"))]
ROWS = sorted({row for output in OUTPUTS for row in output.splitlines()})
NOISE = st.sampled_from(
    ["\x00", "\r", "\n", "\u2028", "é", "nan", "9" * 400, " s", "sec", ":", " is ", observer.PYTORCH, "{", '"']
)


def seen(output: str) -> base.Output:
    """Read without an exception, and fit to be stored."""
    found = parse(output)
    assert len({series.key for series in found.series}) == len(found.series)
    for series in found.series:
        assert all(type(value) is float for value in series.values)
        assert (series.type + series.metric + series.unit).isprintable()
        (series.key + series.text + found.backend).encode()
    return found


@given(st.sampled_from(OUTPUTS), st.integers(0, 5000), st.integers(0, 5000))
def test_truncated_output_is_read_without_an_exception(output: str, start: int, end: int) -> None:
    seen(output[start:-end] if end else output[start:])


@given(st.lists(st.sampled_from(ROWS) | NOISE | st.text(max_size=20), max_size=30))
@example(["Total inference requests: " + "9" * 400, "P50 Latency: - s", "P50 Latency: --1 s", "P50 Latency: 1_0 s"])
def test_interleaved_output_is_read_without_an_exception(rows: list[str]) -> None:
    seen("\n".join(rows))


@given(st.sampled_from(ROWS), st.lists(st.tuples(st.integers(0, 200), NOISE), max_size=5))
def test_broken_rows_are_read_without_an_exception(row: str, breaks: list[tuple[int, str]]) -> None:
    for place, noise in breaks:
        row = row[:place] + noise + row[place:]
    seen(row)


@pytest.mark.parametrize("row", ["P50 Latency: 1 s", "Latency" * 1000, "ime cost" * 1000, "P50 Latency: " + "1" * 9000 + " s"])
def test_much_of_the_same_is_read_to_its_end(row: str) -> None:
    seen("\n".join([row] * max(1, 4_000_000 // len(row))))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_VALUES", 5)
    assert sum(len(series.values) for series in seen("P50 Latency: 1 s\n" * 99).series) == 5
