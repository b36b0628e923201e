from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, model, plugins
from aibenchd.frameworks import base, caffe2
from aibenchd.runners import caffe2_runner

OUTPUTS = Path(__file__).parents[1] / "data/outputs"
RECORDED = {path.stem: path.read_text() for path in sorted(OUTPUTS.glob("caffe2*.txt"))}
NOTHING = model.Benchmark({}, {})

INPUTS = {"data": {"shapes": [[1, 3, 224, 224]], "type": "float"}}
FILES = {"init": {"filename": "init_net.pb"}, "predict": {"filename": "predict_net.pb"}}
PATHS = {"init": "/d/init_net.pb", "predict": "/d/predict_net.pb"}


def parse(output: str) -> base.Output:
    return caffe2.Caffe2().parse(output, NOTHING)


def by_key(output: base.Output) -> dict[str, model.Series]:
    return {series.key: series for series in output.series}


def place(backend: str = "") -> base.Place:
    return base.Place("/d/", "/h", "/b", {"program": "/d/program"}, PATHS, backend=backend)


def commands(backend: str = "", **test: Any) -> tuple[str, ...]:
    return caffe2.Caffe2().commands(model.Benchmark({"files": FILES}, {"identifier": "x", **test}), place(backend))


# ---------------------------------------------------------------- commands


def test_a_test_s_own_commands_are_run() -> None:
    own = ["{program} --net {files.predict} --init_net {files.init} --backend={backend}"]
    assert commands("nnpack", commands=own, inputs=INPUTS) == (
        "/d/program --net /d/predict_net.pb --init_net /d/init_net.pb --backend=nnpack",
    )


def test_where_there_are_none_the_old_form_is_and_names_the_backend_that_is_asked_for() -> None:
    (plain,) = commands(inputs=INPUTS, iter=50, warmup=1)
    (asked,) = commands("eigen", inputs=INPUTS, iter=50, warmup=1)
    assert plain.startswith("/d/program --net /d/predict_net.pb --warmup 1 --iter 50 --init_net /d/init_net.pb --input_dims")
    assert asked == plain + " --backend eigen"


def test_commands_are_ones_that_the_runner_takes() -> None:
    (command,) = commands("onednn", inputs=INPUTS, iter=50, warmup=1)
    options = caffe2_runner.parse_arguments(command.replace("'", "").split()[1:])
    assert (options.input, options.input_dims, options.iterations, options.backend) == ("data", "1,3,224,224", 50, "onednn")


def test_what_does_not_say_what_to_run_is_an_error() -> None:
    with pytest.raises(errors.CommandError, match="x: does not say what to run"):
        commands()


def test_what_can_be_asked_for_is_what_the_runner_knows() -> None:
    assert {*caffe2.Caffe2.backends, "cuda"} == set(caffe2_runner.BACKENDS)
    assert plugins.load("frameworks", "caffe2") is caffe2.Caffe2


# ---------------------------------------------------------------- output


def test_the_runner_s_output() -> None:
    found = parse(RECORDED["caffe2_runner"])
    series = by_key(found)
    assert found.backend == "mkl"
    assert series["NET evidence"].text == "mkl SGEMM x 6, cpu operator x 5"
    assert {key: len(one.values) for key, one in series.items() if one.values} == {
        "NET load": 1,
        "NET first_run": 1,
        "NET cold_start": 1,
        "NET latency": 5,
        "ID_0_Conv latency": 5,
        "ID_1_Relu latency": 5,
        "ID_2_AveragePool latency": 5,
        "ID_3_FC latency": 5,
        "ID_4_Softmax latency": 5,
    }


def test_two_backends_had_the_same_inputs() -> None:
    plain, onednn = parse(RECORDED["caffe2_runner"]), parse(RECORDED["caffe2_runner_onednn"])
    assert onednn.backend == "onednn"
    assert by_key(plain)["NET input_digest"] == by_key(onednn)["NET input_digest"]


def test_where_another_backend_executed_none_is_stated() -> None:
    assert parse(RECORDED["caffe2_runner_refused"]).backend == ""


@given(name=st.sampled_from(sorted(RECORDED)), data=st.data())
def test_output_that_breaks_off_is_what_was_there(name: str, data: st.DataObject) -> None:
    """Each series is the whole one, or it is not there."""
    text, whole = RECORDED[name], by_key(parse(RECORDED[name]))
    for key, series in by_key(parse(text[: data.draw(st.integers(0, len(text)))])).items():
        assert series == whole[key]


@given(data=st.data())
def test_rows_of_others_between_change_nothing(data: st.DataObject) -> None:
    rows = RECORDED["caffe2_runner"].splitlines()
    others = st.text(st.characters(exclude_characters="\n{", exclude_categories=["Cs"]), max_size=60)
    mixed = itertools.chain.from_iterable((row, data.draw(others)) for row in rows)
    assert parse("\n".join(mixed)) == parse(RECORDED["caffe2_runner"])


@given(st.permutations(RECORDED["caffe2_runner"].splitlines()), st.permutations(RECORDED["caffe2_runner_onednn"].splitlines()))
def test_two_programs_that_print_at_once_lose_nothing_and_pass_for_neither(one: list[str], other: list[str]) -> None:
    mixed = [row for pair in itertools.zip_longest(one, other, fillvalue="") for row in pair]
    found = parse("\n".join(mixed))
    assert found.backend == "mkl+onednn"
    assert len(by_key(found)["NET latency"].values) == 10


@given(data=st.data())
def test_rows_torn_into_each_other_are_no_records(data: st.DataObject) -> None:
    """Two programs that write at once without regard for rows: nothing is read that neither wrote."""
    rows = RECORDED["caffe2_runner"].splitlines()
    cut = data.draw(st.integers(1, len(rows[4]) - 1))
    torn = rows[4][:cut] + rows[5] + "\n" + rows[4][cut:]
    written = {series.values for series in parse(RECORDED["caffe2_runner"]).series}
    assert all(series.values in written for series in parse(torn).series)


@given(st.text() | st.text(st.sampled_from('Caffe2Observer {}[]":,\n\\u0000eE+-.0123456789NaInfity')))
def test_hostile_output_is_no_error(text: str) -> None:
    for output in (text, "Caffe2Observer " + text, 'Caffe2Observer {"type": "NET", "metric": "latency", "value": ' + text + "}"):
        for series in parse(output).series:
            assert all(isinstance(value, float) for value in series.values)
            assert series.type.isprintable()


def test_numbers_that_are_none_are_handed_on() -> None:
    found = parse('Caffe2Observer {"type": "NET", "metric": "latency", "unit": "us", "values": [NaN, Infinity, "1e400", 3]}')
    first, *others = found.series[0].values
    assert math.isnan(first)
    assert others == [math.inf, math.inf, 3.0]
