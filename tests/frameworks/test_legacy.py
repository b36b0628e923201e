from __future__ import annotations

import shlex
from typing import Any

import pytest

from aibenchd import errors, model
from aibenchd.frameworks import base, legacy, placeholders

PLACE = base.Place(
    target_directory="/dev/work/",
    host_directory="/host",
    build_directory="/dev/build",
    programs={"program": "/dev/build/bench"},
    files={"init": "/dev/init.pb", "predict": "/dev/predict.pb", "graph": "/dev/graph.tflite", "net": "/dev/net.tflite"},
    input_files={"data": "/dev/data.pb", "mask": "/dev/mask.pb"},
)
DATA: dict[str, Any] = {"data": {"shapes": [[1, 3, 224, 224]], "type": "float"}}
TWO: dict[str, Any] = {**DATA, "gpu_0/mask": {"shapes": [[1, 10]], "type": "int"}}


def file(name: str) -> dict[str, str]:
    return {"filename": name, "location": f"//{name}"}


def benchmark(*files: str, **test: Any) -> model.Benchmark:
    fields = {"identifier": "i", "metric": "delay", "iter": 50, "warmup": 1, **test}
    return model.Benchmark({"name": "net", "files": {name: file(name) for name in files}}, fields, "f.json")


def words(templates: list[str], given: model.Benchmark) -> list[str]:
    (command,) = placeholders.compose(templates, given, PLACE)
    return shlex.split(command)


def test_caffe2_s_command_of_one_input() -> None:
    given = benchmark("init", "predict", inputs=DATA)
    assert " ".join(words(legacy.caffe2(given), given)) == (
        "/dev/build/bench --net /dev/predict.pb --warmup 1 --iter 50 --init_net /dev/init.pb"
        " --input_dims 1,3,224,224 --input data --input_type float"
    )


def test_caffe2_s_command_of_two_inputs_and_two_outputs() -> None:
    given = benchmark("init", "predict", inputs=TWO, output_files={"x": file("x.txt"), "y": file("y.txt")})
    found = words(legacy.caffe2(given), given)
    assert " ".join(found[9:]) == (
        "--input_dims 1,3,224,224;1,10 --input data,gpu_0/mask --input_type float;int"
        " --output x,y --text_output true --output_folder /dev/work/"
    )


def test_caffe2_s_command_of_input_files() -> None:
    given = benchmark("predict", input_files={"data": file("d"), "mask": {**file("m"), "type": "int"}})
    found = words(legacy.caffe2(given), given)
    assert " ".join(found[7:]) == "--input_file /dev/data.pb,/dev/mask.pb --input data,mask --input_type float;int"
    named = benchmark("predict", input_files={"data": file("d")}, inputs={"gpu_0/data": {"shapes": [[1]], "type": "uint8_t"}})
    found = words(legacy.caffe2(named), named)
    assert " ".join(found[7:]) == "--input_file /dev/data.pb --input gpu_0/data --input_type uint8_t"


def test_tflite_s_command() -> None:
    given = benchmark("graph", inputs=DATA)
    assert " ".join(words(legacy.tflite(given), given)) == (
        "/dev/build/bench --graph=/dev/graph.tflite --warmup_runs=1 --num_runs=50 --input_layer=data"
        " --input_layer_shape=1,3,224,224"
    )
    given = benchmark("net", inputs=TWO)
    found = words(legacy.tflite(given), given)
    assert found[1] == "--graph=/dev/net.tflite"
    assert found[4:] == ["--input_layer=data,gpu_0/mask", "--input_layer_shape=1,3,224,224:1,10"]


OPTIONS = {"caffe2": {"run_individual": "true", "engine": "a b"}, "tflite": {"num_threads": "4"}}


def test_a_test_s_own_options_come_last() -> None:
    given = benchmark("predict", "graph", inputs=DATA, command_options=OPTIONS)
    assert words(legacy.caffe2(given), given)[-4:] == ["--run_individual", "true", "--engine", "a b"]
    assert words(legacy.tflite(given), given)[-1] == "--num_threads=4"


def test_a_count_that_is_not_given_is_the_program_s_own() -> None:
    given = benchmark("predict", inputs=DATA, iter=-1, warmup=0)
    assert words(legacy.caffe2(given), given)[3:5] == ["--warmup", "0"]
    assert "--iter" not in words(legacy.caffe2(given), given)


@pytest.mark.parametrize("value", [";rm -rf x", "a b", "'", '"', "$(x)", "`x`"])
def test_names_and_types_stay_one_word(value: str) -> None:
    given = benchmark("predict", "graph", inputs={value: {"shapes": [[1]], "type": value}}, output_files={value: file("x")})
    found = words(legacy.caffe2(given), given)
    assert (found[found.index("--input") + 1], found[found.index("--input_type") + 1]) == (value, value)
    assert found[found.index("--output") + 1] == value
    assert f"--input_layer={value}" in words(legacy.tflite(given), given)


@pytest.mark.parametrize(
    ("compose", "files", "said"),
    [
        (legacy.caffe2, ("init",), "needs the model's file 'predict'"),
        (legacy.tflite, ("a", "b"), "needs the model's file 'graph'"),
        (legacy.tflite, (), "needs the model's file 'graph'"),
    ],
)
def test_a_model_without_its_file_says_so(compose: Any, files: tuple[str, ...], said: str) -> None:
    with pytest.raises(errors.CommandError, match=rf"f\.json: i: .*{said}"):
        compose(benchmark(*files, inputs=DATA))


def test_a_test_without_inputs_says_so() -> None:
    with pytest.raises(errors.CommandError, match="does not say what to run"):
        legacy.caffe2(benchmark("predict"))
