from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.specs import forms, schema

PUBLISHED = sorted((Path(__file__).parents[1] / "data/faipep").rglob("*.json"))
PLAIN = [path for path in PUBLISHED if '"commands": {' not in path.read_text()]
FILE = {"filename": "f", "location": "//f"}


def a_test(**fields: Any) -> dict[str, Any]:
    return {"metric": "delay", "commands": ["x"], **fields}


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ({"commands": "x {iter}"}, {"commands": ["x {iter}"]}),
        ({"input_files": [FILE, FILE]}, {"input_files": {"0": FILE, "1": FILE}}),
        ({"files": [FILE]}, {"files": {"0": FILE}}),
        ({"output_files": [{"filename": "f"}]}, {"output_files": {"0": {"filename": "f"}}}),
        ({"inputs": {"data": {"shapes": [1, 3]}}}, {"inputs": {"data": {"shapes": [[1, 3]]}}}),
        ({"inputs": {"data": {"shapes": [[1], [3]], "type": None}}}, {"inputs": {"data": {"shapes": [[1], [3]]}}}),
        ({"preprocess": {"commands": "x", "files": [FILE]}}, {"preprocess": {"commands": ["x"], "files": {"0": FILE}}}),
        ({"postprocess": ["x", "y"]}, {"postprocess": {"commands": ["x", "y"]}}),
        ({"postprocess": "x"}, {"postprocess": {"commands": ["x"]}}),
        ({"cpu-list": [0, 2]}, {"cpu-list": "0,2"}),
        ({"env": None, "warmup": None, "platform_args": None}, {}),
    ],
)
def test_a_test_s_odd_forms(odd: dict[str, Any], plain: dict[str, Any]) -> None:
    found = forms.model_file({"model": {"name": "net"}, "tests": [a_test(**odd)]}, {})
    assert found["tests"] == [a_test(**plain)]
    schema.ModelFile.model_validate(found)


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ({"files": [FILE]}, {"files": {"0": FILE}}),
        ({"libraries": {"a": {"location": "//a"}, "b": "//b"}}, {"libraries": [{"location": "//a"}, {"location": "//b"}]}),
        ({"libraries": ["//a"]}, {"libraries": [{"location": "//a"}]}),
        ({"preprocess": {"command": "x"}}, {"preprocess": {"command": "x"}}),
        ({"converter": "json_converter"}, {"converter": {"name": "json_converter"}}),
        ({"format": None, "timeout": None}, {}),
    ],
)
def test_a_model_s_odd_forms_and_a_meta_s(odd: dict[str, Any], plain: dict[str, Any]) -> None:
    found = forms.model_file({"model": {"name": "net", **odd}, "meta": odd, "tests": [a_test()]}, {})
    assert (found["model"], found["meta"]) == ({"name": "net", **plain}, plain)
    schema.ModelFile.model_validate(found)


OPTIONS = {"tflite": {"num_threads": 4, "use_gpu": True, "graph": "{files.x}"}, "caffe2": {}}
TEXTS = {"tflite": {"num_threads": "4", "use_gpu": "true", "graph": "{files.x}"}, "caffe2": {}}


@pytest.mark.parametrize("rest", [{"arguments": "-x"}, {"inputs": {"data": {"shapes": [[1]]}}}])
def test_commands_that_are_options(rest: dict[str, Any]) -> None:
    found = forms.model_file({"model": {"name": "net"}, "tests": [{"metric": "delay", "commands": OPTIONS, **rest}]}, {})
    assert found["tests"] == [{"metric": "delay", **rest, "command_options": TEXTS}]
    schema.ModelFile.model_validate(found)


def test_commands_given_twice_once_as_options() -> None:
    value = {"model": {"name": "net"}, "tests": [a_test(), a_test(commands=OPTIONS)]}
    found = forms.model_file(value, {("tests", 1, "commands"): "x", ("tests", 0, "commands"): ["y"]})
    assert found["tests"] == [a_test(), a_test(commands=["x"], command_options=TEXTS)]
    found = forms.model_file(value, {("tests", 1, "commands"): {"tflite": {}}})
    assert found["tests"][1] == {"metric": "delay", "command_options": TEXTS}


@pytest.mark.parametrize("commands", [{"tflite": "4"}, {"tflite": {}, "x": []}])
def test_commands_that_are_nothing_that_is_known(commands: dict[str, Any]) -> None:
    value = {"model": {"name": "net"}, "tests": [a_test(commands=commands)]}
    assert forms.model_file(value, {}) == value


def test_a_benchmarks_file_s_odd_forms() -> None:
    found = forms.benchmarks_file({"meta": None, "benchmarks": "a.json"})
    assert found == {"benchmarks": ["a.json"]}
    schema.BenchmarksFile.model_validate(found)


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_what_is_published_is_plain_already(path: Path) -> None:
    value = json.loads(path.read_text())
    assert forms.model_file(value, {}) == value == forms.benchmarks_file(value)


KEYS = st.sampled_from(
    ["model", "tests", "meta", "files", "commands", "inputs", "shapes", "preprocess", "libraries", "converter"]
)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


@given(VALUES)
def test_any_value_is_made_plain_once_and_is_not_changed(value: Any) -> None:
    before = copy.deepcopy(value)
    found = forms.model_file(value, {})
    assert value == before
    assert forms.model_file(found, {}) == found
