from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibenchd import errors, model
from aibenchd.frameworks import base, gathering, observer, tflite

RECORDED = Path(__file__).parents[1] / "data/outputs"
NOTHING = model.Benchmark({}, {})
PLACE = base.Place("/dev/", "/host", "/build", {"program": "/build/benchmark_model"}, {"graph": "/dev/net.tflite"})
FILES = {"graph": {"filename": "net.tflite", "location": "//net.tflite"}}


def parse(output: str) -> base.Output:
    return tflite.TfLite().parse(output, NOTHING)


def recorded(name: str) -> base.Output:
    return parse((RECORDED / f"{name}.txt").read_text())


def values(output: base.Output) -> dict[str, tuple[float, ...]]:
    return {series.key: series.values for series in output.series if series.values}


def commands(place: base.Place = PLACE, **test: Any) -> tuple[str, ...]:
    fields = {"identifier": "i", "metric": "delay", "iter": 50, "warmup": 1, **test}
    return tflite.TfLite().commands(model.Benchmark({"name": "net", "files": FILES}, fields, "f.json"), place)


# ---------------------------------------------------------------- what benchmark_model printed, over the years


@pytest.mark.parametrize(
    ("name", "backend", "latency", "runs", "first", "load"),
    [
        ("tflite_2018", "cpu", 150988, 50, 135310, 12123),
        ("tflite_2019", "cpu", 66767.6, 50, 127425, 9933),
        ("tflite_2020_opengl", "opengl", 11937.5, 84, 13056, 870557),
        ("tflite_2020_hexagon", "dsp", 5221.5, 190, 6571, 1059810),
        ("tflite_2021_cpu", "cpu", 2950340, 50, 3512391, 17187),
        ("tflite_2022_android_app", "", 392865, 50, 394833, 120900),
        ("tflite_2024_xnnpack", "xnnpack", 15517.6, 64, 19834, 32163),
    ],
)
def test_the_last_block_is_the_network_s_latency(
    name: str, backend: str, latency: float, runs: float, first: float, load: float
) -> None:
    found = recorded(name)
    assert found.backend == backend
    keys = ("NET latency", "NET runs", "NET first_run", "NET load")
    assert [values(found)[key] for key in keys] == [pytest.approx((value,)) for value in (latency, runs, first, load)]
    assert all(series.unit == "us" for series in found.series if series.metric == "latency")


def test_what_else_a_block_tells_stands_beside_it() -> None:
    found = values(recorded("tflite_2024_xnnpack"))
    statistics = {key.removeprefix("NET latency_"): value for key, (value,) in found.items() if key.startswith("NET latency_")}
    assert statistics == {"min": 14661, "max": 17579, "std": 551, "p5": 14822, "median": 15402, "p95": 16503}
    assert found["NET memory_footprint"] == pytest.approx((34.8281 * 1024**2,))
    assert values(recorded("tflite_2020_opengl"))["NET peak_memory_footprint"] == (96.25 * 1024**2,)


def test_operators_are_microseconds_by_name_and_summed_by_type() -> None:
    found = values(recorded("tflite_2018"))
    assert found["squeezenet/fire2/squeeze/Relu latency"] == (6877,)
    assert found["CONV_2D latency"] == pytest.approx((9132 + 6877,))
    found = values(recorded("tflite_2021_cpu"))
    assert found["MobilenetV1/MobilenetV1/Conv2d_1_pointwise/Relu6 latency"] == pytest.approx((147808,))
    assert not any("AllocateTensors" in key for key in found)


def test_what_is_called_several_times_in_a_run_counts_as_often() -> None:
    found = values(recorded("tflite_2024_xnnpack"))
    assert found["Delegate/Convolution (NHWC, QC8) DWConv:1 latency"] == pytest.approx((13 * 51,))
    assert found["Convolution (NHWC, QC8) DWConv latency"] == pytest.approx((13 * 51 + 320,))
    assert found["tfl.quantize latency"] == pytest.approx((203,))


def test_the_runner_s_lines_are_read() -> None:
    found = recorded("tflite_runner")
    assert found.backend == "xnnpack"
    assert [len(values(found)[key]) for key in ("NET latency", "ID_2_FLOOR_MOD latency")] == [3, 3]


# ---------------------------------------------------------------- backends

RAN = "Loaded model x\nRunning benchmark for 1 iterations\ncount=5 curr=300(all same)\n"


@pytest.mark.parametrize(
    ("log", "backend"),
    [
        ("", "cpu"),
        ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.", ""),
        ("VERBOSE: Replacing 0 out of 9 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.", "cpu"),
        ("VERBOSE: Replacing 7 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.", "xnnpack"),
        ("Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.", "cpu"),
        ("Use gpu: [1]\nGPU acceleration is unsupported on this platform.", ""),
        ("Use nnapi : [1]", ""),
        ("INFO: Initialized OpenCL-based API.\nExplicitly applied GPU delegate, and so on", "opencl"),
        ("INFO: Initialized OpenGL-based API.\nINFO: Created 0 GPU delegate kernels.", "cpu"),
        ("Applied GPU delegate, and the model graph will be completely executed w/ the delegate.", "gpu"),
        ("Hexagon delegate: 0 nodes delegated out of 67 nodes with 0 partitions.", "cpu"),
        (
            "INFO: TfLiteHexagonDelegate delegate: 136 nodes delegated out of 139 nodes with 2 partitions.\n"
            "VERBOSE: Replacing 12 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 7 partitions.",
            "dsp",
        ),
        ("Explicitly applied NNAPI delegate, and …\nExplicitly applied GPU delegate, and …", "gpu+nnapi"),
    ],
)
def test_a_backend_is_stated_where_the_log_proves_it(log: str, backend: str) -> None:
    assert parse(f"{log}\n{RAN}").backend == backend
    assert parse(f"{RAN}\n{log}").backend == backend


def test_a_log_that_tells_nothing_proves_nothing() -> None:
    assert parse(RAN.partition("\n")[2]).backend == ""
    assert parse("Loaded model x\nExplicitly applied XNNPACK delegate, and …").backend == ""


def test_a_profile_proves_a_delegate() -> None:
    header = "= Run Order =\n\t[node type]\t[start]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]\n"
    assert parse(RAN + header + "\tTfLiteXNNPackDelegate\t0.0\t1.0\t1.0\t99%\t99%\t0.0\t1\t[x]:1").backend == "xnnpack"
    inner = "\tCopy (NC, X32)\t0.0\t1.0\t1.0\t99%\t99%\t0.0\t1\tDelegate/Copy (NC, X32):0"
    created = "\nINFO: Created TensorFlow Lite XNNPACK delegate for CPU."
    assert parse(RAN + header + inner + created).backend == "xnnpack"


# ---------------------------------------------------------------- commands


def test_a_test_without_commands_has_fai_pep_s() -> None:
    assert commands(inputs={"input": {"shapes": [[1, 224, 224, 3]], "type": "float"}}) == (
        "/build/benchmark_model --graph=/dev/net.tflite --warmup_runs=1 --num_runs=50 --input_layer=input"
        " --input_layer_shape=1,224,224,3",
    )


def test_a_backend_is_asked_for_where_the_command_does_not_name_it() -> None:
    place = base.Place("/dev/", "/host", "/build", {"program": "/b"}, {}, backend="cpu", extra_arguments="--more")
    assert commands(place, commands=["{program} --x", "true"]) == ("/b --x --more --use_xnnpack=false", "true")
    assert commands(place, commands=["{program} --backend={backend}"]) == ("/b --backend=cpu --more",)
    assert commands(commands=["{program} --backend={backend}"]) == ("/build/benchmark_model --backend=",)


def test_a_model_without_its_file_says_so() -> None:
    with pytest.raises(errors.CommandError, match=r"f\.json: i: .*graph"):
        tflite.TfLite().commands(model.Benchmark({}, {"identifier": "i"}, "f.json"), PLACE)


def test_each_backend_that_can_be_asked_for_has_an_option() -> None:
    assert tflite.OPTIONS.keys() == tflite.TfLite.backends.keys()


# ---------------------------------------------------------------- hostile output


def seen(output: str) -> base.Output:
    """What is read, fit to be stored."""
    found = parse(output)
    assert len({series.key for series in found.series}) == len(found.series) <= gathering.MAX_SERIES
    for series in found.series:
        assert all(type(value) is float for value in series.values)
        assert (series.type + series.metric + series.unit).isprintable()
        assert len(series.type) <= gathering.MAX_NAME
        (series.key + series.text + found.backend).encode()
    return found


OUTPUTS = [path.read_text() for path in sorted(RECORDED.glob("tflite*.txt"))]
ROWS = sorted({row for output in OUTPUTS for row in output.split("\n")})
NOISE = st.sampled_from(["", "\x00", "\ud800", "%%%", "9" * 400, "-1e999", "nan", "[[%]", "[%][avg ms][%]", "= Run Order ="])


@given(st.sampled_from(OUTPUTS), st.integers(0, 5000), st.integers(0, 5000))
def test_truncated_output_is_read_without_an_exception(output: str, start: int, end: int) -> None:
    seen(output[start:-end] if end else output[start:])


@given(st.lists(st.sampled_from(ROWS) | NOISE | st.text(max_size=20), max_size=30))
@example(["= Run Order =", "[%][avg ms][%]", "%%%"])
@example(["= Run Order =", "[node type] [avg ms] [%]", "x 1 2% 3% 4 5 6"])
@example(["Running benchmark for", "count=1 curr=" + "9" * 400])
def test_interleaved_output_is_read_without_an_exception(rows: list[str]) -> None:
    seen("\n".join(rows))


@given(st.sampled_from(ROWS), st.lists(st.tuples(st.integers(0, 200), NOISE), max_size=5))
def test_broken_rows_are_read_without_an_exception(row: str, breaks: list[tuple[int, str]]) -> None:
    for place, noise in breaks:
        row = row[:place] + noise + row[place:]
    header = "[node type]  [start]  [first]  [avg ms]  [%]  [cdf%]  [mem KB]  [times called]  [Name]"
    seen("\n".join(["Running benchmark for", row, "= Run Order =", header, row, row]))


def test_numbers_that_are_none_are_seen() -> None:
    (latency,) = values(seen("Running benchmark for\ncount=1 curr=" + "9" * 400))["NET latency"]
    assert latency == math.inf
    assert "NET latency" not in values(seen("Running benchmark for\ncount=3 avg=nan std=nan"))


@pytest.mark.parametrize(
    "row",
    [
        "Running benchmark for",
        "= Run Order =",
        " " * 10_000,
        "count=1 avg=" * 900,
        "Replacing " * 1000,
        "%" * 9000,
        "x" * 200_000,
    ],
)
def test_much_of_the_same_is_read_to_its_end(row: str) -> None:
    seen("\n".join([row] * max(1, 4_000_000 // len(row))))  # for hours, where a pattern looks at a row again and again


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_SERIES", 5)
    table = "= Run Order =\n[node type] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]\n"
    rows = "\n".join(f"C 1 1 1% 1% 0 1 [{number}{'n' * 999}]" for number in range(99))
    assert len(seen(table + rows).series) == 5
    assert len(seen((table + "C 1 1 1% 1% 0 1 [n]\n") * 500).series[0].values) <= 100


def test_observer_lines_among_the_text_are_read() -> None:
    line = observer.PYTORCH + '{"type": "NET", "metric": "latency", "unit": "us", "values": [1, 2]}\n'
    assert values(seen(line))["NET latency"] == (1, 2)
