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
    found = forms.model_file({"model": {"name": "net"}, "tests": [a_test(**odd)]})
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
    found = forms.model_file({"model": {"name": "net", **odd}, "meta": odd, "tests": [a_test()]})
    assert (found["model"], found["meta"]) == ({"name": "net", **plain}, plain)
    schema.ModelFile.model_validate(found)


def test_a_benchmarks_file_s_odd_forms() -> None:
    found = forms.benchmarks_file({"meta": None, "benchmarks": "a.json"})
    assert found == {"benchmarks": ["a.json"]}
    schema.BenchmarksFile.model_validate(found)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_what_is_published_is_plain_already(path: Path) -> None:
    value = json.loads(path.read_text())
    assert forms.model_file(value) == value == forms.benchmarks_file(value)


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
    found = forms.model_file(value)
    assert value == before
    assert forms.model_file(found) == found
