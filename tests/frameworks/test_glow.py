from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, model
from aibenchd.frameworks import base, gathering, glow

RECORDED = Path(__file__).parents[1] / "data/outputs"
NOTHING = model.Benchmark({}, {})


def parse(output: str) -> base.Output:
    return glow.Glow().parse(output, NOTHING)


def recorded(name: str) -> base.Output:
    return parse((RECORDED / f"glow_{name}.txt").read_text())


def values(output: base.Output) -> dict[str, tuple[float, ...]]:
    return {series.key: series.values for series in output.series}


def test_each_run_of_a_benchmark_is_a_sample() -> None:
    found = recorded("bench")
    assert values(found)["NET AddBench:runtime"] == (0.000152, 0.000149, 0.000151)
    assert values(found)["SECONDARY GemmParallelBench:throughput"] == (32.1,)
    assert values(found)["NET latency"] == pytest.approx((152, 149, 151, 4100, 4200))
    assert found.backend == "cpu"
    assert parse("BenchResult,AddBench,SW,1,Interpreter,Float32,1.0,2.0").backend == "interpreter"


def test_each_inference_of_net_runner_is_a_sample() -> None:
    found = values(recorded("net_runner"))
    assert found["NET glow net_runner inference"] == found["NET latency"] == (1234, 1240, 1229)
    assert found["SECONDARY pytorch net_runner inference"] == (2234, 2250)
    assert found["NET glow net_runner request p90"] == (1239.5,)
    assert found["NET glow net_runner card batch p50"] == (990.25,)
    assert found["NET glow vs pytorch abs error p99"] == (0.0034,)
    assert found["NET accuracy"] == (0.75,)
    assert recorded("net_runner").backend == ""


def test_without_inferences_the_median_is_taken() -> None:
    assert values(parse("latency per request [glow]:\nlatency(ms): p50: 1.5"))["NET latency"] == (1500,)
    assert "NET latency" not in values(parse("latency per request [pytorch]:\nlatency(ms): p50: 1.5"))


def test_means_are_in_the_unit_that_is_printed() -> None:
    found = {series.key: series for series in recorded("repro").series}
    assert found["NET latency"] == model.Series("NET", "latency", "us", (5125.0,))
    assert found["NET Avg inference duration"] == model.Series("NET", "Avg inference duration", "ms", (5.125,))
    assert found["NET Avg inference per second"].values == (195.122,)
    assert values(recorded("image_classifier"))["NET latency"] == pytest.approx((23100,))
    newer = "Average wall time per item (s): 0.5\n            Best wall time (s): 0.25"
    assert values(parse(newer)) == {
        "NET Average wall time per item": (0.5,),
        "NET Best wall time": (0.25,),
        "NET latency": (500_000,),
    }


def test_a_latency_that_a_record_states_is_the_only_one() -> None:
    record = '{"type": "NET", "metric": "latency", "unit": "ms", "values": [1, 2]}'
    assert values(parse(record + "\nAvg inference duration (ms): 5"))["NET latency"] == (1, 2)


def test_commands_are_the_specification_s() -> None:
    place = base.Place("/dev/", "/host", "/build", {"program": "/build/AddBench"}, {}, backend="CPU")
    test = {"commands": ["{program} 4096 10 3 1 1 {backend} Float32"]}
    assert glow.Glow().commands(model.Benchmark({}, test), place) == ("/build/AddBench 4096 10 3 1 1 CPU Float32",)
    with pytest.raises(errors.CommandError, match="does not say what to run"):
        glow.Glow().commands(NOTHING, place)


def seen(output: str) -> base.Output:
    """What is read, fit to be stored."""
    found = parse(output)
    assert len({series.key for series in found.series}) == len(found.series)
    for series in found.series:
        assert all(type(value) is float for value in series.values)
        assert (series.type + series.metric + series.unit).isprintable()
        (series.key + series.text + found.backend).encode()
    return found


OUTPUTS = [path.read_text() for path in sorted(RECORDED.glob("glow_*.txt"))]
ROWS = sorted({row for output in OUTPUTS for row in output.split("\n")})
NOISE = st.sampled_from(["", "\x00", "\ud800", ",,,,,", "9" * 400, "-1e999", "nan", "latency per ", " [", "]:", "(", "{", "[["])


@given(st.sampled_from(OUTPUTS), st.integers(0, 700), st.integers(0, 700))
def test_truncated_output_is_read_without_an_exception(output: str, start: int, end: int) -> None:
    seen(output[start:-end] if end else output[start:])


@given(st.lists(st.sampled_from(ROWS) | NOISE | st.text(max_size=20), max_size=30))
def test_interleaved_output_is_read_without_an_exception(rows: list[str]) -> None:
    seen("\n".join(rows))


@given(st.sampled_from(ROWS), st.lists(st.tuples(st.integers(0, 80), NOISE), max_size=5))
def test_broken_rows_are_read_without_an_exception(row: str, breaks: list[tuple[int, str]]) -> None:
    for place, noise in breaks:
        row = row[:place] + noise + row[place:]
    seen(f"latency per x [glow]:\na: b vs c(\n{row}")


@pytest.mark.parametrize(
    "row",
    [
        "latency per [" * 1000,
        "latency(" * 1500,
        ": x vs " * 2000,
        "BenchResult," * 900,
        "inference " * 1500,
        "{" * 9000,
        "x" * 200_000,
    ],
)
def test_much_of_the_same_is_read_to_its_end(row: str) -> None:
    seen("\n".join([row] * max(1, 4_000_000 // len(row))))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_VALUES", 5)
    found = values(seen("Avg inference duration (ms): 5\n" * 99))
    assert sum(map(len, found.values())) == 5
