from __future__ import annotations

import copy
from typing import Any

import pytest

from aibenchd.specs import contradictions

FILE = {"filename": "f", "location": "//f"}


def found(*tests: dict[str, Any], **whole: Any) -> list[tuple[str, str]]:
    """What is said of tests, by key; nothing that was given is changed."""
    filled = [{"metric": "delay", "identifier": f"i{index}", "commands": ["x"], **test} for index, test in enumerate(tests)]
    document = {"model": {"name": "net", **whole}, "tests": filled}
    before = copy.deepcopy(document)
    said = [(".".join(map(str, key_path)), message) for key_path, message in contradictions.of(document)]
    assert document == before
    return said


@pytest.mark.parametrize(
    ("test", "key", "said"),
    [
        ({"command": "y"}, "tests.0.command", "and commands say different things to run; 'command' holds"),
        ({"command": "y", "arguments": "z"}, "tests.0.arguments", "and command and commands say different things"),
        (
            {"commands": ["{program} {program} y"], "arguments": "{program} y"},
            "tests.0.arguments",
            "names {program}, which stands",
        ),
        ({"command_options": {"tflite": {}, "caffe2": {}}}, "tests.0.commands", "has options (tflite, caffe2) for a test that"),
        ({"metric": "generic", "command": "y"}, "tests.0.commands", "'commands' holds"),
        ({"inputs": {"data": {"shapes": [[1], [2]]}}}, "tests.0.inputs", "has 2 shapes and makes 2 tests"),
        ({"cpu-list": "0", "platform_args": {"taskset": "1"}}, "tests.0.cpu-list", "'cpu-list' holds"),
        ({"voltage": 4.2}, "tests.0.voltage", "belongs to the metric 'power', and this test's is 'delay'"),
        ({"metric": "power", "voltage": 4.2, "monsoon": {"voltage": 5}}, "tests.0.voltage", "is 4.2 here and 5 in 'monsoon'"),
        ({"profiler": {"enabled": True}}, "tests.0.profiler", "no profiler is run"),
        ({"commands": ["{program} {files.net}"]}, "tests.0.commands", "names {files.net}, and there is no such file"),
        ({"preprocess": {"command": "{input_files.a}"}}, "tests.0.preprocess.command", "names {input_files.a}"),
        (
            {"postprocess": {"files": {"a": FILE}, "commands": ["{files.a}"]}},
            "tests.0.postprocess.commands",
            "names {files.a}, and there is no such file; did you mean {postprocess.files.a}? it stays as it is",
        ),
        ({"commands": ["x", "{files.net}"]}, "tests.0.commands.1", "names {files.net}, and there is no such file; it stays"),
        (
            {"commands": ["{files.nte}"], "files": {"net": FILE}},
            "tests.0.commands",
            "there is no such file; did you mean {files.net}? it stays as it is",
        ),
    ],
)
def test_a_test_that_contradicts_itself(test: dict[str, Any], key: str, said: str) -> None:
    ((where, message),) = found(test)
    assert where == key
    assert said in message


@pytest.mark.parametrize(
    "test",
    [
        {"command": "x"},
        {"commands": ["{program} -x"], "arguments": "-x"},
        {"metric": "generic", "inputs": {"data": {"shapes": [[1], [2]]}}},
        {"metric": "power", "voltage": 4.2, "collection_time": 180, "monsoon": {"voltage": 4.2}},
        {"metric": "power", "method": "software"},
        {"profiler": {"enabled": False, "types": ["perf"]}},
        {"commands": ["{files.net} {files.here} {input_files.a} {output_files.b}"], "files": {"here": FILE}}
        | {"input_files": {"a": FILE}, "output_files": {"b": {"filename": "b"}}},
        {"postprocess": {"files": {"labels": FILE}, "commands": ["{postprocess.files.labels}"]}},
    ],
)
def test_a_test_that_does_not(test: dict[str, Any]) -> None:
    assert found(test, files={"net": FILE}) == []


def test_a_model_s_own_commands_are_read_too() -> None:
    ((key, message),) = found({}, preprocess={"commands": ["{files.lost} {files.net}"]}, files={"net": FILE})
    assert (key, message[:20]) == ("model.preprocess.commands", "names {files.lost}, ")
    assert found({"files": {"labels": FILE}}, postprocess={"commands": ["{files.labels}"]}) == []


def test_two_tests_of_one_name() -> None:
    assert found({"identifier": "{ID}"}, {"identifier": "{ID}"}) == []
    ((key, message),) = found({"identifier": "a"}, {"identifier": "a"})
    assert (key, message) == ("tests.1.identifier", "'a' is the name of tests[0] too; its number is appended to this one's")
    ((key, message),) = found({"identifier": ""}, {"identifier": "b"}, {"identifier": ""})
    assert (key, message[:37]) == ("tests.2.identifier", "gives no identifier, as tests[0]; its")
